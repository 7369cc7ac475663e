"""A staging in hand: bytes gather in memory up to a segment, and are an object when it is full or put down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from adaptry.blobs.s3 import segments
from adaptry.blobs.s3.composing import compose
from adaptry.blobs.s3.lease import Lease
from adaptry.blobs.s3.objects import Objects
from adaptry.blobs.s3.segments import SEGMENT, Segment
from adaptry.blobs.store import Hashers, Staged
from adaptry.digest import Digest
from adaptry.errors import AdaptryError

Released = Callable[[str, tuple[Segment, ...]], None]


class StagedObjects(Staged):
    """`release` is told the key and the segments when the staging is put down."""

    def __init__(
        self,
        key: str,
        row: Sequence[Segment],
        hashers: Hashers,
        objects: Objects,
        lease: Lease,
        blob_key: Callable[[Digest], str],
        release: Released,
    ) -> None:
        super().__init__(key, row[-1].end if row else 0, hashers)
        self._row = list(row)
        self._buffer = bytearray()
        self._objects = objects
        self._lease = lease
        self._blob_key = blob_key
        self._tell = release
        self._in_hand: tuple[Segment, bytes] | None = None

    @property
    def _flushed(self) -> int:
        return self._row[-1].end if self._row else 0

    def _write(self, piece: memoryview) -> None:
        self._lease.keep()
        self._buffer += piece
        if len(self._buffer) >= SEGMENT:
            self._flush()

    def _flush(self) -> None:
        start = self._flushed
        name = segments.new_name(self.key, start)
        self._objects.put(name, bytes(self._buffer))
        self._row.append(Segment(name, start, len(self._buffer)))
        self._buffer.clear()

    def _truncate(self, offset: int) -> None:
        """Forgets what is after `offset`. Objects that cannot be deleted now are swept with the staging."""
        if offset >= self._flushed:
            del self._buffer[offset - self._flushed :]
            return
        begun = next((one for one in self._row if one.start < offset < one.end), None)
        head = self._read(begun.start, offset - begun.start) if begun else b""
        gone = [one.name for one in self._row if one.end > offset]
        self._row = [one for one in self._row if one.end <= offset]
        self._buffer = bytearray(head)
        with suppress(AdaptryError):
            self._objects.delete(gone)

    def _read(self, start: int, length: int) -> bytes:
        found = bytearray()
        for one in self._row:
            if one.start < start + length and start < one.end:
                data = self._segment(one)
                found += data[max(0, start - one.start) : start + length - one.start]
        flushed = self._flushed
        if start + length > flushed:
            found += self._buffer[max(0, start - flushed) : start + length - flushed]
        return bytes(found)

    def _segment(self, one: Segment) -> bytes:
        """Read whole: it is hashed from end to end."""
        if self._in_hand is None or self._in_hand[0] != one:
            self._in_hand = (one, self._objects.read(one.name, 0, one.size)[0])
        return self._in_hand[1]

    def _publish(self, digest: Digest) -> None:
        key = self._blob_key(digest)
        if not self._row:
            data = bytes(self._buffer)
            if not self._objects.create(key, data) and self._objects.size(key) != len(data):
                self._objects.put(key, data)
        else:
            if self._buffer:
                self._flush()
            compose(self._objects, key, self._row)
        self._buffer.clear()
        self._objects.delete(one.name for one in self._row)
        self._row.clear()

    def _discard(self) -> None:
        self._buffer.clear()
        self._row.clear()
        found = self._objects.listed(segments.folder(self.key))
        self._objects.delete([item.key for item in found if not item.key.endswith(".lease")])

    def _release(self) -> None:
        try:
            if self._buffer:
                self._flush()
        finally:
            self._tell(self.key, tuple(self._row))
            self._lease.release()
