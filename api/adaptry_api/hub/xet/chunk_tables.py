"""Chunk tables: the hashes and lengths of consecutive chunks in a xorb or a file."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.hub.xet.hashes import BYTES

_END = array("Q").itemsize


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """A table of chunks: `hashes` of 32 bytes each, and `ends`, the end of each chunk in bytes from the start
    of the first.
    """

    hashes: bytes = b""
    ends: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def of(cls, chunks: Iterable[tuple[bytes, int]]) -> Self:
        """A table of (hash, length) pairs."""
        hashes, ends, end = bytearray(), array("Q"), 0
        for hash, length in chunks:
            end += length
            hashes += hash
            ends.append(end)
        return cls(bytes(hashes), ends)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The table that `to_bytes` wrote. Raises `Invalid`."""
        count, rest = divmod(len(data), BYTES + _END)
        ends = array("Q")
        ends.frombytes(data[count * BYTES : len(data) - rest])
        starts = array("Q", [0, *ends[:-1]])
        if rest or any(end <= start for start, end in zip(starts, ends, strict=True)):
            raise Invalid("not a table of chunks")
        return cls(data[: count * BYTES], ends)

    def to_bytes(self) -> bytes:
        return self.hashes + self.ends.tobytes()

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Hash and length of each chunk."""
        start = 0
        for number, end in enumerate(self.ends):
            yield self.hashes[number * BYTES : (number + 1) * BYTES], end - start
            start = end

    @property
    def size(self) -> int:
        """Total length of all chunks in bytes."""
        return self.ends[-1] if self.ends else 0

    def start(self, number: int) -> int:
        """The offset of a chunk; for the number after the last, the end of the last."""
        return self.ends[number - 1] if number else 0

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Offset and length of the chunks from `start` up to, not including, `end`. Raises `Invalid`."""
        if not 0 <= start < end <= len(self):
            raise Invalid(f"chunks {start:,} to {end:,} do not exist: it has {len(self):,} chunks")
        return self.start(start), self.ends[end - 1] - self.start(start)

    def slice(self, start: int, end: int) -> ChunkTable:
        """The table of only the chunks from `start` up to, not including, `end`."""
        before = self.start(start)
        ends = array("Q", (each - before for each in self.ends[start:end]))
        return ChunkTable(self.hashes[start * BYTES : end * BYTES], ends)
