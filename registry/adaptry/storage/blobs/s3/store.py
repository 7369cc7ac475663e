"""`S3Blobs`: blobs as `sha256/ab/<hex>` in a bucket, and stagings under `tmp/`.

Keys are the paths of a folder of blobs, so that any tool that copies a folder to a bucket can move a store. A
blob is hashed while its bytes arrive, and appears complete. Ranges are read, and segments written, several at
once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from threading import Lock
from urllib.parse import quote

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound
from adaptry.storage.blobs.s3 import lease, segments
from adaptry.storage.blobs.s3.location import S3Location
from adaptry.storage.blobs.s3.objects import S3Objects
from adaptry.storage.blobs.s3.ranges import read_ahead
from adaptry.storage.blobs.s3.segments import StagedSegment
from adaptry.storage.blobs.s3.staging import StagedObjects
from adaptry.storage.blobs.s3.uploader import SegmentUploader
from adaptry.storage.blobs.store import CHUNK, BlobStore, StagedBlob, UploadUrl, blob_not_found

_BLOB = re.compile(r"sha256/[0-9a-f]{2}/([0-9a-f]{64})")
_KEPT_ROWS = 256
_ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished multipart upload counts as abandoned."""


class S3Blobs(BlobStore):
    """A `BlobStore` in an existing bucket. Raises `Unavailable` if it cannot be used."""

    is_on_this_machine = False

    def __init__(self, location: S3Location) -> None:
        super().__init__()
        self.location = location
        self.objects = S3Objects(location)
        self._held: set[str] = set()
        self._rows: dict[str, tuple[StagedSegment, ...]] = {}
        self._lock = Lock()
        self._reading = ThreadPoolExecutor(16, "s3-read")
        self._writing = ThreadPoolExecutor(16, "s3-write")

    def has(self, digest: Digest) -> bool:
        return self.objects.size(_key(digest)) is not None

    def size(self, digest: Digest) -> int:
        size = self.objects.size(_key(digest))
        if size is None:
            raise blob_not_found(digest)
        return size

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        return self._ranged(digest, start, length)[0]

    def chunks(self, digest: Digest, start: int = 0) -> Iterator[bytes]:
        first, size = self._ranged(digest, start, CHUNK)
        return self._stream(digest, first, start, size)

    def delete(self, digest: Digest) -> None:
        self.objects.delete([_key(digest)])

    def copy_id(self, digest: Digest) -> str | None:
        return self.objects.etag(_key(digest))

    def _move_aside(self, digest: Digest, seen: str) -> bool:
        if not self.objects.copy(_key(digest), f"damaged/{digest.hex}.{self.new_key()}", seen):
            return False
        self.objects.delete([_key(digest)])
        return True

    def digests(self) -> Iterator[Digest]:
        for item in self.objects.list_objects("sha256/"):
            if match := _BLOB.fullmatch(item.key):
                yield Digest(match[1])

    def staging(self, key: str) -> AbstractContextManager[StagedBlob]:
        folder = segments.folder(key)
        with self._lock:
            if key in self._held:
                raise _held()
            self._held.add(key)
        try:
            taken = lease.acquire_lease(self.objects, f"{folder}lease")
            if taken is None:
                raise _held()
            row = segments.chain(self.objects.list_objects(folder))
        except BaseException:
            self._held.discard(key)
            raise
        if self._rows.pop(key, ()) != row:
            self._hashers.pop(key, None)  # another process continued: our hash is outdated
        return StagedObjects(
            key,
            row,
            self._hashers,
            self.objects,
            SegmentUploader(self.objects, self._writing),
            taken,
            _key,
            self._whole,
            self._released,
        )

    def staged_size(self, key: str) -> int:
        row = segments.chain(self.objects.list_objects(segments.folder(key)))
        return row[-1].end if row else 0

    def is_held(self, key: str) -> bool:
        return key in self._held or lease.is_leased(self.objects, f"{segments.folder(key)}lease")

    def last_write(self, key: str) -> datetime | None:
        found = self.objects.list_objects(segments.folder(key))
        ages = [item.age for item in found if not item.key.endswith(".lease")]
        return datetime.now(UTC) - timedelta(seconds=min(ages)) if ages else None

    def stagings(self) -> Iterator[str]:
        keys = (segments.key_of(item.key) for item in self.objects.list_objects("tmp/"))
        yield from dict.fromkeys(key for key in keys if key)

    def require_room(self, size: int) -> None:
        """A bucket's free size is unknown; only checks that the bucket exists."""
        self.objects.require_bucket()

    def tidy(self) -> int:
        return self.objects.abort_uploads(_ABANDONED)

    def download_url(self, digest: Digest, filename: str, seconds: int) -> str:
        disposition = f"attachment; filename*=UTF-8''{quote(filename)}"
        return self.objects.presigned_get(_key(digest), seconds, disposition)

    def upload_url(self, key: str, start: int, size: int, seconds: int) -> UploadUrl:
        url = self.objects.presigned_put(segments.new_open_name(key, start), size, seconds)
        return UploadUrl(url, self.location.encryption_headers)

    def _released(self, key: str, row: tuple[StagedSegment, ...]) -> None:
        if row:
            self._rows[key] = row
            while len(self._rows) > _KEPT_ROWS:
                self._rows.pop(next(iter(self._rows)), None)
        self._held.discard(key)

    def _ranged(self, digest: Digest, start: int, length: int) -> tuple[bytes, int]:
        try:
            return self.objects.read(_key(digest), start, length)
        except NotFound:
            raise blob_not_found(digest) from None

    def _stream(self, digest: Digest, first: bytes, start: int, size: int) -> Iterator[bytes]:
        """The first piece, then the prefetched ones."""
        if first:
            yield first
        for data in read_ahead(self.objects, self._reading, _key(digest), start + len(first), size):
            for at in range(0, len(data), CHUNK):
                yield data[at : at + CHUNK]

    def _whole(self, segment: StagedSegment) -> Iterator[bytes]:
        return read_ahead(self.objects, self._reading, segment.name, 0, segment.size)


def _key(digest: Digest) -> str:
    return f"sha256/{digest.hex[:2]}/{digest.hex}"


def _held() -> Conflict:
    return Conflict("another process is sending this file; wait a moment, then continue")
