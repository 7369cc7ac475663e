"""Readable xorbs: their chunk tables, and the locations of their bytes in a spool or in the adapter's files.

A spooled xorb is a file with the unpacked chunks and a trailer. Once files with all of its chunks are stored,
only a trailer with the byte runs of those files is kept, so the bytes are on the disk once.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData, Invalid, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.hub.xet.chunk_tables import ChunkTable
from adaptry_api.hub.xet.hashes import chunk_hash
from adaptry_api.hub.xet.xorb import MAX_XORB_CHUNKS

_RUN = struct.Struct("<32sQQ")
_COUNTS = struct.Struct("<II")  # chunks, runs
_ENTRY = 40  # bytes of a chunk in the table


@dataclass(frozen=True, slots=True)
class Run:
    """`length` bytes from `begin` on, in a spooled or stored file."""

    source: Path | Digest
    begin: int
    length: int


@dataclass(frozen=True, slots=True)
class StoredXorb:
    """The runs are in the order of the chunks."""

    table: ChunkTable
    runs: tuple[Run, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises `NotFound`, and `CorruptData` if the file was not written by `xorb_with_trailer` or
        `xorb_trailer`.
        """
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _COUNTS.size))
                chunks, runs = _COUNTS.unpack(file.read(_COUNTS.size).rjust(_COUNTS.size, b"\0"))
                trailer = chunks * _ENTRY + runs * _RUN.size
                held = size - _COUNTS.size - trailer
                if not 0 < chunks <= MAX_XORB_CHUNKS or not runs <= chunks or held < 0:
                    raise CorruptData(_DAMAGED)
                file.seek(held)
                table = ChunkTable.parse(file.read(chunks * _ENTRY))
                found = tuple(_run(file.read(_RUN.size)) for _ in range(runs))
        except FileNotFoundError:
            raise NotFound("no such xorb") from None
        except Invalid as error:
            raise CorruptData(_DAMAGED) from error
        if table.size != (sum(run.length for run in found) if found else held):
            raise CorruptData(_DAMAGED)
        return cls(table, found or (Run(path, 0, held),))

    @property
    def files(self) -> frozenset[Digest]:
        """The stored files that contain its bytes."""
        return frozenset(run.source for run in self.runs if isinstance(run.source, Digest))

    def runs_of(self, start: int, end: int) -> tuple[Run, ...]:
        """The locations of the chunks from `start` up to, not including, `end`. Raises `Invalid`."""
        begin, length = self.table.span(start, end)
        return tuple(_cut(self.runs, begin, length))


_DAMAGED = "a xorb that was received is damaged; upload again"


def xorb_with_trailer(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The chunks, followed by the trailer that `StoredXorb` reads."""

    # The hashes are computed, not taken from the client: other writers of the adapter rely on them.
    table: list[tuple[bytes, int]] = []
    for chunk in chunks:
        table.append((chunk_hash(chunk), len(chunk)))
        yield chunk
    yield ChunkTable.of(table).to_bytes() + _COUNTS.pack(len(table), 0)


def xorb_trailer(table: ChunkTable, runs: Sequence[Run]) -> Iterator[bytes]:
    """Only the trailer of a xorb whose chunks are in these runs of stored files."""
    yield table.to_bytes()
    for run in runs:
        assert isinstance(run.source, Digest)
        yield _RUN.pack(bytes.fromhex(run.source.hex), run.begin, run.length)
    yield _COUNTS.pack(len(table), len(runs))


def merge_runs(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The same bytes in as few runs as possible."""
    found: list[Run] = []
    for run in runs:
        last = found[-1] if found else None
        if last and last.source == run.source and last.begin + last.length == run.begin:
            found[-1] = Run(last.source, last.begin, last.length + run.length)
        else:
            found.append(run)
    return tuple(found)


def _cut(runs: Iterable[Run], begin: int, length: int) -> Iterator[Run]:
    """`length` bytes of the runs together, from `begin` on."""
    for run in runs:
        passed = min(begin, run.length)
        taken = min(length, run.length - passed)
        begin, length = begin - passed, length - taken
        if taken:
            yield Run(run.source, run.begin + passed, taken)


def _run(data: bytes) -> Run:
    digest, begin, length = _RUN.unpack(data)
    return Run(Digest(digest.hex()), begin, length)
