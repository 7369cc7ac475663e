"""Blobs in a bucket of any S3 server.

The server is not trusted: we hash bytes as they are written, and readers hash them as they are read. Features
that only some servers have (conditional writes, checksums, copies of parts) make operations cheaper; without
them, results are still correct.
"""

from adaptry.storage.blobs.s3.location import S3Location
from adaptry.storage.blobs.s3.store import S3Blobs

__all__ = ["S3Blobs", "S3Location"]
