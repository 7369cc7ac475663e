"""Readable xorbs: their chunk tables, and the locations of their bytes in a spool or in the adapter's files.

A spooled xorb is a file with the unpacked chunks and a trailer. The trailer lists byte runs of other files if
the bytes are there, so that they are on the disk once: in the file that is stored while xorbs arrive
(`early_join`), or in stored files that have all of its chunks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData, Invalid, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.hub.xet.chunk_tables import ChunkTable
from adaptry_api.hub.xet.hashes import chunk_hash
from adaptry_api.hub.xet.xorb import MAX_XORB_CHUNKS

_RUN = struct.Struct("<32sQQ")  # a file, begin, length
_JOINED_FILE = bytes(
    16
)  # instead of the first half of a digest; the other half is the key of a file beside it
_OWN_FILE = bytes(16)  # the key of the xorb's own file
_COUNTS = struct.Struct("<II")  # chunks, runs
_JOINED = "joined-"
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
        """Opens a stored xorb. Raises `NotFound`, and `CorruptData` if the file was not written by
        `xorb_trailer`.
        """
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _COUNTS.size))
                chunks, runs = _COUNTS.unpack(file.read(_COUNTS.size).rjust(_COUNTS.size, b"\0"))
                trailer = chunks * _ENTRY + runs * _RUN.size
                held = size - _COUNTS.size - trailer
                if not 0 < chunks <= MAX_XORB_CHUNKS or runs > chunks + 1 or held < 0:
                    raise CorruptData(_DAMAGED)
                file.seek(held)
                table = ChunkTable.parse(file.read(chunks * _ENTRY))
                found = tuple(_parse_run(path, file.read(_RUN.size)) for _ in range(runs))
        except FileNotFoundError:
            raise NotFound("no such xorb") from None
        except Invalid as error:
            raise CorruptData(_DAMAGED) from error
        if table.size != (sum(run.length for run in found) if found else held) or not all(
            map(_exists, found)
        ):
            raise CorruptData(_DAMAGED)
        return cls(table, found or (Run(path, 0, held),))

    @property
    def files(self) -> frozenset[Digest]:
        """The stored files that contain its bytes."""
        return frozenset(run.source for run in self.runs if isinstance(run.source, Digest))

    def runs_of(self, start: int, end: int) -> tuple[Run, ...]:
        """The locations of the chunks from `start` up to, not including, `end`. Raises `Invalid`."""
        begin, length = self.table.span(start, end)
        return tuple(_slice(self.runs, begin, length))


_DAMAGED = "a xorb that was received is damaged; upload again"


def hashed(
    chunks: Iterable[bytes | memoryview], table: list[tuple[bytes, int]]
) -> Iterator[bytes | memoryview]:
    """The chunks; the hash and length of each are added to `table`."""
    # The hashes are computed, not taken from the client: other writers of the adapter rely on them.
    for chunk in chunks:
        table.append((chunk_hash(chunk), len(chunk)))
        yield chunk


def xorb_trailer(table: ChunkTable, runs: Sequence[Run]) -> Iterator[bytes]:
    """The trailer of a xorb whose chunks are in these runs of stored files, of a `file_beside` it, or of its
    own file, where they precede the trailer. Without runs, they are all in its own file.
    """
    yield table.to_bytes()
    for run in runs:
        yield _RUN.pack(_file_key(run.source), run.begin, run.length)
    yield _COUNTS.pack(len(table), len(runs))


def file_beside(xorb: Path, key: str) -> Path:
    """The path of a file in the same folder that may contain bytes of the xorb. `key`: 32 hexadecimal
    digits.
    """
    return xorb.with_name(_JOINED + key)


def files_beside(folder: Path) -> dict[str, Path]:
    """The files with bytes of xorbs in a folder, by key."""
    return {path.name.removeprefix(_JOINED): path for path in folder.glob(f"{_JOINED}*")}


def merge_runs(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Merges adjacent runs, so that the same bytes have as few runs as possible."""
    found: list[Run] = []
    for run in runs:
        last = found[-1] if found else None
        if last and last.source == run.source and last.begin + last.length == run.begin:
            found[-1] = Run(last.source, last.begin, last.length + run.length)
        else:
            found.append(run)
    return tuple(found)


def _slice(runs: Iterable[Run], begin: int, length: int) -> Iterator[Run]:
    """`length` bytes of the runs together, from `begin` on."""
    for run in runs:
        passed = min(begin, run.length)
        taken = min(length, run.length - passed)
        begin, length = begin - passed, length - taken
        if taken:
            yield Run(run.source, run.begin + passed, taken)


def _file_key(source: Path | Digest) -> bytes:
    if isinstance(source, Digest):
        return bytes.fromhex(source.hex)
    is_beside = source.name.startswith(_JOINED)
    return _JOINED_FILE + (bytes.fromhex(source.name.removeprefix(_JOINED)) if is_beside else _OWN_FILE)


def _parse_run(xorb: Path, data: bytes) -> Run:
    file, begin, length = _RUN.unpack(data)
    if not file.startswith(_JOINED_FILE):
        return Run(Digest(file.hex()), begin, length)
    key = file.removeprefix(_JOINED_FILE)
    return Run(xorb if key == _OWN_FILE else file_beside(xorb, key.hex()), begin, length)


def _exists(run: Run) -> bool:
    """Whether the file has these bytes. Those of stored files are checked when they are read."""
    if isinstance(run.source, Digest):
        return True
    with suppress(FileNotFoundError):  # removed
        return run.begin + run.length <= run.source.stat().st_size
    return False
