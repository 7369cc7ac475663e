"""Xorbs: many chunks of files in one body, each stored plainly or packed with LZ4.

A chunk is a header of 8 bytes (version, stored length, scheme, length; both lengths of 3 bytes, little-endian) and
its data. A footer may follow; it repeats what the headers say and is not looked at. Everything has a limit that is
checked before anything is unpacked, so that a small body cannot become a large one (xet-core: `xorb_chunk_format`).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import lz4.frame

from adaptry.errors import Corrupt, Invalid, NotFound, TooLarge

MOST_CHUNKS = 8192
LARGEST_CHUNK = 128 << 10
LARGEST = 64 << 20
"""Of what a xorb holds when it is unpacked."""
LARGEST_BODY = LARGEST + (2 << 20)
"""With headers, and the footer that some clients send."""

_HEADER = 8
_FOOTER = b"XETBLOB"
_PLAIN, _LZ4, _GROUPED = range(3)
_COUNT = 4  # bytes of a number in a spooled xorb's table
_PIECE = 1 << 20


def unpacked(body: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of a xorb, in order, as it arrives. Raises `Invalid` and `TooLarge`."""
    source = _Source(body)
    unpack = _Unpacker()
    count = total = 0
    while header := source.take(_HEADER):
        if header.startswith(_FOOTER):
            source.skip()
            break
        stored, scheme, length = _read_header(header, count)
        count, total = count + 1, total + length
        if count > MOST_CHUNKS or total > LARGEST:
            raise TooLarge(f"a xorb holds at most {MOST_CHUNKS:,} chunks and {LARGEST >> 20} MiB, unpacked")
        data = source.take(stored)
        if len(data) < stored:
            raise Invalid(f"the xorb ends inside chunk {count - 1}")
        yield unpack(data, scheme, length, count - 1)
    if not count:
        raise Invalid("the xorb is empty")


def _read_header(header: bytes, number: int) -> tuple[int, int, int]:
    """Stored length, scheme and length of a chunk, each within its limits. Raises `Invalid`."""
    if len(header) < _HEADER:
        raise Invalid(f"the xorb ends inside the header of chunk {number}")
    version, scheme = header[0], header[4]
    stored, length = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
    if version != 0 or scheme not in (_PLAIN, _LZ4, _GROUPED):
        raise Invalid(
            f"chunk {number} of the xorb is of version {version} and scheme {scheme}, which we do not know"
        )
    if not 0 < length <= LARGEST_CHUNK or not 0 < stored <= length or (scheme == _PLAIN and stored != length):
        raise Invalid(
            f"chunk {number} of the xorb says that {stored:,} bytes become {length:,}; a chunk is at most "
            f"{LARGEST_CHUNK:,} bytes, and never smaller than it is packed"
        )
    return stored, scheme, length


class _Unpacker:
    """Undoes a chunk's packing. One of them serves a xorb: LZ4's state is costly to make."""

    def __init__(self) -> None:
        self._lz4 = lz4.frame.create_decompression_context()

    def __call__(self, data: bytes, scheme: int, length: int, number: int) -> bytes:
        if scheme == _PLAIN:
            return data
        lz4.frame.reset_decompression_context(self._lz4)
        try:
            # One byte more than there should be, so that there being more is seen.
            out, used, is_whole = lz4.frame.decompress_chunk(self._lz4, data, max_length=length + 1)
        except RuntimeError as error:
            raise Invalid(f"chunk {number} of the xorb is not what LZ4 packs") from error
        if not is_whole or used != len(data) or len(out) != length:
            raise Invalid(
                f"chunk {number} of the xorb does not unpack to the {length:,} bytes that it announces"
            )
        return ungrouped(out) if scheme == _GROUPED else out


def ungrouped(data: bytes) -> bytes:
    """Bytes that were sorted by their position modulo 4, in their own order again."""
    out = bytearray(len(data))
    at = 0
    for group in range(4):
        size = (len(data) - group + 3) // 4
        out[group::4] = data[at : at + size]
        at += size
    return bytes(out)


class _Source:
    """Takes so many bytes at a time from a stream that comes in pieces of its own."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        taken = self._piece[self._at : self._at + size]
        self._at += len(taken)
        while len(taken) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._piece, self._at = piece, min(len(piece), size - len(taken))
            taken += piece[: self._at]
        return taken

    def skip(self) -> None:
        """Reads the rest and forgets it."""
        for _ in self._pieces:
            pass


def table_after(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, and behind them the table by which `Xorb` finds them in a file."""
    ends = array("I")
    end = 0
    for chunk in chunks:
        end += len(chunk)
        ends.append(end)
        yield chunk
    yield ends.tobytes() + len(ends).to_bytes(_COUNT, "little")


@dataclass(frozen=True, slots=True)
class Xorb:
    """An unpacked xorb in a file on this machine. `ends` says where in it each chunk ends."""

    path: Path
    ends: array[int]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads the table. Raises `NotFound`, and `Corrupt` for a file that `table_after` did not fill."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _COUNT))
                length = _COUNT * int.from_bytes(file.read(_COUNT), "little")
                if not 0 < length <= min(size - _COUNT, _COUNT * MOST_CHUNKS):
                    raise Corrupt("a xorb that was received is damaged; upload again")
                file.seek(size - _COUNT - length)
                ends = array("I")
                ends.frombytes(file.read(length))
        except FileNotFoundError:
            raise NotFound("no such xorb") from None
        if ends[-1] != size - _COUNT - length:
            raise Corrupt("a xorb that was received is damaged; upload again")
        return cls(path, ends)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where the chunks from `start` to before `end` begin in the file, and how many bytes they are. Raises `Invalid`."""
        if not 0 <= start < end <= len(self.ends):
            raise Invalid(f"it has {len(self.ends):,} chunks, and not those from {start:,} to {end:,}")
        begin = self.ends[start - 1] if start else 0
        return begin, self.ends[end - 1] - begin

    def read(self, begin: int, length: int) -> Iterator[bytes]:
        """Bytes of the file, in pieces of at most 1 MiB."""
        with self.path.open("rb", buffering=0) as file:
            while length and (piece := os.pread(file.fileno(), min(_PIECE, length), begin)):
                yield piece
                begin, length = begin + len(piece), length - len(piece)
