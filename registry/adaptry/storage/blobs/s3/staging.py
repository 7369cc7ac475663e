"""An open staging: bytes are collected in memory up to a segment, which is written to the bucket once it is
full or the staging is closed.

Bytes that clients wrote by presigned URL are copied, before they are hashed, to a key that only we can write
to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.storage.blobs.s3 import segments
from adaptry.storage.blobs.s3.lease import Lease
from adaptry.storage.blobs.s3.multipart import compose
from adaptry.storage.blobs.s3.objects import S3Objects
from adaptry.storage.blobs.s3.segments import SEGMENT, StagedSegment
from adaptry.storage.blobs.s3.uploader import SegmentUploader
from adaptry.storage.blobs.store import Hashers, StagedBlob

Released = Callable[[str, tuple[StagedSegment, ...]], None]


class StagedObjects(StagedBlob):
    """`whole` reads a segment; closing the staging calls `release` with the key and the segments."""

    def __init__(
        self,
        key: str,
        row: Sequence[StagedSegment],
        hashers: Hashers,
        objects: S3Objects,
        sending: SegmentUploader,
        lease: Lease,
        blob_key: Callable[[Digest], str],
        whole: Callable[[StagedSegment], Iterator[bytes]],
        release: Released,
    ) -> None:
        super().__init__(key, row[-1].end if row else 0, hashers)
        self._row = list(row)
        self._buffer = bytearray()
        self._objects = objects
        self._sending = sending
        self._lease = lease
        self._blob_key = blob_key
        self._whole = whole
        self._tell = release

    @property
    def _flushed(self) -> int:
        return self._row[-1].end if self._row else 0

    def publish(self, digest: Digest) -> None:
        if any(one.is_open for one in self._row):
            self._close()
        super().publish(digest)

    def _close(self) -> None:
        """From now on only this process can change the staged bytes."""
        if self._buffer:
            self._flush()
            self._sending.drain()
        name = segments.new_name(self.key, 0)
        compose(self._objects, name, self._row)
        open_ones = [one.name for one in self._row]
        self._row = [StagedSegment(name, 0, self.offset)]
        self._hasher = None
        with suppress(AdaptryError):  # they are swept with the staging
            self._objects.delete(open_ones)

    def _write(self, piece: memoryview) -> None:
        self._lease.renew()
        self._buffer += piece
        if len(self._buffer) >= SEGMENT:
            self._flush()

    def _flush(self) -> None:
        start = self._flushed
        name = segments.new_name(self.key, start)
        data, self._buffer = self._buffer, bytearray()
        self._row.append(StagedSegment(name, start, len(data)))
        self._sending.put(name, data)

    def _settle(self) -> None:
        self._sending.drain()

    def _truncate(self, offset: int) -> None:
        """Drops the bytes after `offset`. Objects that cannot be deleted now are swept with the staging."""
        with suppress(AdaptryError):  # unsent bytes come after it
            self._sending.drain()
        if offset >= self._flushed:
            del self._buffer[offset - self._flushed :]
            return
        begun = next((one for one in self._row if one.start < offset < one.end), None)
        head = self._begun(begun)[: offset - begun.start] if begun else b""
        gone = [one.name for one in self._row if one.end > offset]
        self._row = [one for one in self._row if one.end <= offset]
        self._sending.unsent.clear()
        self._buffer = bytearray(head)
        with suppress(AdaptryError):
            self._objects.delete(gone)

    def _begun(self, one: StagedSegment) -> bytes | bytearray:
        """Drops a segment whose bytes are no longer needed; it may not have been sent."""
        return self._sending.unsent.get(one.name) or self._read(one.start, one.size)

    def _read(self, start: int, length: int) -> bytes:
        found = bytearray()
        for one in self._row:
            if one.start < start + length and start < one.end:
                first, last = max(start, one.start), min(start + length, one.end)
                found += self._objects.read(one.name, first - one.start, last - first)[0]
        flushed = self._flushed
        if start + length > flushed:
            found += self._buffer[max(0, start - flushed) : start + length - flushed]
        return bytes(found)

    def _rehash(self) -> str:
        hasher = hashlib.sha256()
        with BackgroundHasher(hasher.update) as beside:
            for one in self._row:
                for piece in self._whole(one):
                    self._lease.renew()
                    beside.update(memoryview(piece))
        hasher.update(self._buffer)
        return hasher.hexdigest()

    def _publish(self, digest: Digest) -> None:
        key = self._blob_key(digest)
        if not self._row:
            data = bytes(self._buffer)
            if not self._objects.create(key, data) and self._objects.size(key) != len(data):
                self._objects.put(key, data)
        else:
            if self._buffer:
                self._flush()
                self._sending.drain()
            compose(self._objects, key, self._row)
        self._buffer.clear()
        self._objects.delete(one.name for one in self._row)
        self._row.clear()

    def _discard(self) -> None:
        self._buffer.clear()
        self._row.clear()
        found = self._objects.list_objects(segments.folder(self.key))
        self._objects.delete([item.key for item in found if not item.key.endswith(".lease")])

    def _release(self) -> None:
        try:
            if self._buffer:
                self._flush()
            self._sending.drain()
        finally:
            self._tell(self.key, tuple(self._row))
            self._lease.release()
