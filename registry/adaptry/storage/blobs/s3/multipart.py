"""Joins segments to one object on the server: a multipart upload with copied parts, where possible.

The object appears complete when the upload completes, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from adaptry.core.errors import Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.blobs.s3.errors import http_status, require_answer, s3_error_code, translated_errors
from adaptry.storage.blobs.s3.objects import S3Objects, md5
from adaptry.storage.blobs.s3.segments import MIN_PART, StagedSegment, parts

_CONCURRENCY = 8
_MAX_ATTEMPTS = 4
_COPY_PART = 64 << 20
"""Maximum size of a copied part: S3 copies at most 5 GiB at once; larger segments are copied in ranges."""


def compose(objects: S3Objects, key: str, row: Sequence[StagedSegment]) -> None:
    """Joins the segments in order to the object `key`; an existing object is kept. Raises `Unavailable`."""
    size = row[-1].end
    found = objects.size(key)
    if found == size:
        return
    with translated_errors(objects.location):
        begun = objects.client.create_multipart_upload(
            **objects.key_params(key), **objects.location.encryption
        )
    upload = objects.key_params(key) | {
        "UploadId": require_answer(begun, "UploadId", objects.location)["UploadId"]
    }
    try:
        with ThreadPoolExecutor(_CONCURRENCY, "compose") as pool:
            sources = tuple(source for group in parts(row) for source in _sources(group))
            made = list(pool.map(lambda item: _part(objects, upload, *item), enumerate(sources, 1)))
        _complete(objects, key, upload, made, size, is_absent=found is None)
    except BaseException:
        # An upload that cannot be aborted now is not an object; `tidy` aborts it after a day.
        with suppress(ClientError, BotoCoreError):
            objects.client.abort_multipart_upload(**upload)
        raise
    if objects.size(key) != size:
        raise Unavailable(
            f"{objects.location} created an object of the wrong size; it cannot be used for blobs"
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of one part: segments, or the range from `start` on of a large segment."""

    group: Sequence[StagedSegment]
    start: int
    size: int

    @property
    def copying(self) -> dict[str, str]:
        """The parameters of its copy; S3 accepts no range that covers the whole object."""
        if self.size == self.group[0].size:
            return {}
        return {"CopySourceRange": f"bytes={self.start}-{self.start + self.size - 1}"}


def _sources(group: Sequence[StagedSegment]) -> Iterator[_Source]:
    size = sum(segment.size for segment in group)
    if len(group) > 1:
        yield _Source(group, 0, size)
        return
    start = 0
    while size - start > _COPY_PART + MIN_PART:
        yield _Source(group, start, _COPY_PART)
        start += _COPY_PART
    yield _Source(group, start, size - start)


def _part(objects: S3Objects, upload: dict[str, str], number: int, source: _Source) -> dict[str, Any]:
    """Uploads one part: copied by the server, or sent again from several segments if they are too small."""
    with translated_errors(objects.location):
        if len(source.group) == 1:
            try:
                copied = objects.client.upload_part_copy(
                    **upload,
                    PartNumber=number,
                    CopySource=objects.key_params(source.group[0].name),
                    **source.copying,
                )
                made = require_answer(copied, "CopyPartResult", objects.location)["CopyPartResult"]
                return {"PartNumber": number, "ETag": made["ETag"]}
            except ClientError as error:
                if http_status(error) != 501:
                    raise
            data = objects.read(source.group[0].name, source.start, source.size)[0]
        else:
            data = b"".join(objects.read(segment.name, 0, segment.size)[0] for segment in source.group)
        sent = objects.client.upload_part(**upload, PartNumber=number, Body=data, ContentMD5=md5(data))
        return {"PartNumber": number, "ETag": require_answer(sent, "ETag", objects.location)["ETag"]}


def _complete(
    objects: S3Objects,
    key: str,
    upload: dict[str, str],
    made: list[dict[str, Any]],
    size: int,
    is_absent: bool,
) -> None:
    for left in reversed(range(_MAX_ATTEMPTS)):
        condition = {"IfNoneMatch": "*"} if objects.has_conditions and is_absent else {}
        with translated_errors(objects.location):
            try:
                objects.client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": made}, **condition
                )
                return
            except ClientError as error:
                if objects.size(key) == size and (
                    http_status(error) == 412 or s3_error_code(error) == "NoSuchUpload"
                ):
                    return  # another process created it, or this answers a repeated request
                if left and (http_status(error) in (409, 412) or not _knows(objects, error)):
                    time.sleep(0.05 * (_MAX_ATTEMPTS - left))
                    is_absent = objects.size(key) is None
                    continue
                raise


def _knows(objects: S3Objects, error: ClientError) -> bool:
    objects.is_final_refusal(error)
    return objects.has_conditions
