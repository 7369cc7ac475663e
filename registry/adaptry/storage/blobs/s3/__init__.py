"""Blobs in a bucket of any S3 server.

Nothing is taken on the server's word: bytes are hashed by us on their way in, and by their reader on the way
out. What not every server has (conditional writes, checksums, copies of parts) makes things cheaper where it
is there, and nothing wrong where it is missing.
"""

from adaptry.storage.blobs.s3.location import S3Location
from adaptry.storage.blobs.s3.store import S3Blobs

__all__ = ["S3Blobs", "S3Location"]
