"""Finds the features that a bucket's server lacks, by trying them. Leftovers are swept like those of an
upload.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from botocore.exceptions import ClientError

from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.storage.blobs.s3 import segments
from adaptry.storage.blobs.s3.errors import http_status, translated_errors
from adaptry.storage.blobs.s3.location import S3Location
from adaptry.storage.blobs.s3.multipart import compose
from adaptry.storage.blobs.s3.objects import S3Objects
from adaptry.storage.blobs.s3.segments import MIN_PART, StagedSegment

_SIZE = MIN_PART


def find_missing_capabilities(location: S3Location) -> tuple[str, ...]:
    """The missing features and their consequences, a sentence each; the store is correct without them.

    Raises `Unavailable` for a server that cannot be used: no bucket, credentials refused, or wrong bytes
    returned.
    """
    objects = S3Objects(location)
    objects.require_bucket()
    key = secrets.token_hex(16)
    name, whole = (segments.new_name(key, 0) for _ in range(2))
    data = secrets.token_bytes(_SIZE)
    try:
        objects.put(name, data)
        if objects.read(name, 100, 1000)[0] != data[100:1100]:
            raise Unavailable(f"{location} returns different bytes than were written; use another server")
        missing = []
        if objects.create(name, b"again") or objects.size(name) != _SIZE:
            missing.append("it ignores If-None-Match: two concurrent senders of one upload do the work twice")
        elif not objects.has_conditions:
            missing.append("it has no conditional writes (501): every upload needs one more request")
        compose(objects, whole, [StagedSegment(name, 0, _SIZE)])
        if objects.read(whole, 0, _SIZE)[0] != data:
            raise Unavailable(f"{location} joins parts incorrectly; use another server")
        if objects.has_conditions and not _completes_conditionally(objects, whole):
            missing.append(
                "it ignores If-None-Match at the end of a multipart upload: two processes that publish the"
                " same bytes at once both write them"
            )
        return tuple(missing)
    finally:
        with suppress(AdaptryError):
            objects.delete([name, whole])


def _completes_conditionally(objects: S3Objects, key: str) -> bool:
    """Whether the end of a multipart upload with this condition leaves an existing object unchanged."""
    client = objects.client
    with translated_errors(objects.location):
        begun = client.create_multipart_upload(**objects.key_params(key), **objects.location.encryption)
        upload = objects.key_params(key) | {"UploadId": begun["UploadId"]}
        sent = client.upload_part(**upload, PartNumber=1, Body=b"again")
        parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
        try:
            client.complete_multipart_upload(**upload, MultipartUpload=parts, IfNoneMatch="*")
        except ClientError as error:
            client.abort_multipart_upload(**upload)
            if http_status(error) in (409, 412):
                return True
            raise
    return False
