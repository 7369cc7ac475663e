"""Joins files from the chunks of xorbs: checks first that everything is there, then copies bytes.

Chunks were unpacked and checked on arrival, so only the file's SHA-256 can still be wrong, and the registry
checks it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, NotFound, TooLarge
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_FILE, MAX_REVISION
from adaptry_api.hub.xet.chunk_tables import ChunkTable
from adaptry_api.hub.xet.shard import XetFile
from adaptry_api.hub.xet.stored_xorb import Run, StoredXorb, merge_runs

ReadStored = Callable[[Digest, int], Iterator[bytes]]
"""The bytes of a stored file from a position on."""

MAX_FILE_CHUNKS = 1 << 20
"""Maximum number of chunks of all files of a shard: four times those of 16 GiB, with 64 KiB chunks as clients
cut them on average.
"""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class XorbSlice:
    """The chunks from `start` up to, not including, `end` of the xorb with this hash."""

    hash: str
    xorb: StoredXorb
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class JoinedFile:
    """A file to be joined from pieces of xorbs."""

    sha256: Digest
    size: int
    pieces: tuple[XorbSlice, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The locations of its bytes, in order."""
        return merge_runs(run for piece in self.pieces for run in piece.xorb.runs_of(piece.start, piece.end))

    @property
    def table(self) -> ChunkTable:
        """The file's chunks, in order."""
        return ChunkTable.of(
            chunk for piece in self.pieces for chunk in piece.xorb.table.slice(piece.start, piece.end)
        )

    @property
    def sources(self) -> frozenset[Digest]:
        """The stored files that contain some of its bytes."""
        return frozenset[Digest]().union(*(piece.xorb.files for piece in self.pieces))

    def read(self, start: int, stored: ReadStored) -> Iterator[bytes]:
        """The file's bytes from `start` on, in pieces of at most 1 MiB."""
        for run in self.runs:
            passed = min(start, run.length)
            start -= passed
            if passed < run.length:
                yield from _read(Run(run.source, run.begin + passed, run.length - passed), stored)


def resolve_files(files: Sequence[XetFile], find: Callable[[str], StoredXorb]) -> tuple[JoinedFile, ...]:
    """The files of a shard, over the xorbs that `find` returns. Raises `Invalid` if they do not match, and
    `TooLarge`.
    """
    if sum(file.size for file in files) > MAX_REVISION:
        raise TooLarge(f"the files of one upload may have at most {MAX_REVISION >> 30} GiB together")
    if sum(segment.end - segment.start for file in files for segment in file.segments) > MAX_FILE_CHUNKS:
        raise TooLarge(f"the files of one upload may have at most {MAX_FILE_CHUNKS:,} chunks together")
    known: dict[str, StoredXorb] = {}
    return tuple(_join(file, find, known) for file in files)


def stored_runs(files: Iterable[JoinedFile]) -> Mapping[str, tuple[StoredXorb, tuple[Run, ...]]]:
    """The spooled xorbs whose chunks are all in these files, by hash, with the byte runs of the files that
    contain the chunks.
    """
    placed: dict[str, dict[int, Run]] = {}
    xorbs: dict[str, StoredXorb] = {}
    for file in files:
        position = 0
        for piece in file.pieces:
            places = placed.setdefault(piece.hash, {})
            xorbs[piece.hash] = piece.xorb
            for number in range(piece.start, piece.end):
                _, length = piece.xorb.table.span(number, number + 1)
                places.setdefault(number, Run(file.sha256, position, length))
                position += length
    return {
        hash: (xorb, merge_runs(placed[hash][number] for number in range(len(xorb.table))))
        for hash, xorb in xorbs.items()
        if len(placed[hash]) == len(xorb.table) and not xorb.files
    }


def _join(file: XetFile, find: Callable[[str], StoredXorb], known: dict[str, StoredXorb]) -> JoinedFile:
    if file.size > MAX_FILE:
        raise TooLarge(f"the file has {file.size:,} bytes; the limit is {MAX_FILE >> 30} GiB")
    pieces: list[XorbSlice] = []
    for segment in file.segments:
        try:
            xorb = known.get(segment.xorb) or known.setdefault(segment.xorb, find(segment.xorb))
            _, length = xorb.table.span(segment.start, segment.end)
        except (Invalid, NotFound) as error:
            raise Invalid(
                f"the file {file.sha256.brief} needs xorb {segment.xorb[:12]}…, which does not fit:"
                f" {error.message}"
            ) from None
        if length != segment.length:
            raise Invalid(
                f"the file {file.sha256.brief} takes {segment.length:,} bytes from xorb {segment.xorb[:12]}…,"
                f" but those chunks have {length:,}"
            )
        pieces.append(XorbSlice(segment.xorb, xorb, segment.start, segment.end))
    return JoinedFile(file.sha256, file.size, tuple(pieces))


def _read(run: Run, stored: ReadStored) -> Iterator[bytes]:
    if isinstance(run.source, Path):
        yield from read_spooled(run.source, run.begin, run.length)
        return
    left = run.length
    for piece in stored(run.source, run.begin):
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


def read_spooled(path: Path, begin: int, length: int) -> Iterator[bytes]:
    """`length` bytes of a spooled file from `begin` on, in pieces of at most 1 MiB."""
    with path.open("rb", buffering=0) as file:
        while length and (piece := os.pread(file.fileno(), min(_PIECE, length), begin)):
            yield piece
            begin, length = begin + len(piece), length - len(piece)
