"""Segments made one object, by the server: a multipart upload whose parts are copied where the server does that.

The object appears whole, when the upload completes, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from adaptry.blobs.s3.errors import code_of, explained, status_of
from adaptry.blobs.s3.objects import Objects
from adaptry.blobs.s3.segments import Segment, parts
from adaptry.errors import Unavailable

_AT_ONCE = 4
_TRIES = 4


def compose(objects: Objects, key: str, row: Sequence[Segment]) -> None:
    """Makes `key` of the segments, in order; what is there already is left. Raises `Unavailable`."""
    size = row[-1].end
    if objects.size(key) == size:
        return
    with explained(objects.place):
        begun = objects.client.create_multipart_upload(**objects.at(key), **objects.place.encryption)
    upload = objects.at(key) | {"UploadId": begun["UploadId"]}
    try:
        with ThreadPoolExecutor(_AT_ONCE, "compose") as pool:
            groups = tuple(parts(row))
            made = list(pool.map(lambda item: _part(objects, upload, *item), enumerate(groups, 1)))
        _complete(objects, key, upload, made, size)
    except BaseException:
        # What cannot be ended now is no object, and ended by `tidy` after a day.
        with suppress(ClientError, BotoCoreError):
            objects.client.abort_multipart_upload(**upload)
        raise
    if objects.size(key) != size:
        raise Unavailable(
            f"{objects.place} made an object of another size than its parts; it cannot be used for blobs"
        )


def _part(objects: Objects, upload: dict[str, str], number: int, group: Sequence[Segment]) -> dict[str, Any]:
    """One part: a segment copied by the server, or, too small for one, several sent again."""
    with explained(objects.place):
        if len(group) == 1:
            try:
                source = objects.at(group[0].name)
                copied = objects.client.upload_part_copy(**upload, PartNumber=number, CopySource=source)
                return {"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]}
            except ClientError as error:
                if status_of(error) != 501:
                    raise
        data = b"".join(objects.read(segment.name, 0, segment.size)[0] for segment in group)
        sent = objects.client.upload_part(**upload, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": sent["ETag"]}


def _complete(
    objects: Objects, key: str, upload: dict[str, str], made: list[dict[str, Any]], size: int
) -> None:
    for left in reversed(range(_TRIES)):
        condition = {"IfNoneMatch": "*"} if objects.has_conditions and objects.size(key) is None else {}
        with explained(objects.place):
            try:
                objects.client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": made}, **condition
                )
                return
            except ClientError as error:
                if objects.size(key) == size and (
                    status_of(error) == 412 or code_of(error) == "NoSuchUpload"
                ):
                    return  # someone else made it, or this is the answer to a request that was sent again
                if left and (status_of(error) in (409, 412) or not _knows(objects, error)):
                    time.sleep(0.05 * (_TRIES - left))
                    continue
                raise


def _knows(objects: Objects, error: ClientError) -> bool:
    objects.is_settled(error)
    return objects.has_conditions
