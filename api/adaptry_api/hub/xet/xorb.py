"""Xorbs as clients send them: many chunks of files in one body, each stored plainly or packed with LZ4.

A chunk is a header of 8 bytes (version, stored length, scheme, length; both lengths of 3 bytes,
little-endian) and its data. A footer may follow; it repeats the headers and is ignored. All limits are
checked before anything is unpacked, so that a small body cannot expand without bound (xet-core:
`xorb_chunk_format`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import lz4.frame

from adaptry.core.errors import Invalid, TooLarge

MAX_XORB_CHUNKS = 8192
MAX_CHUNK_BYTES = 128 << 10
MAX_XORB_BYTES = 64 << 20
MAX_EXPANSION = 16
"""Unpacked, a xorb has at most `MAX_XORB_BYTES`, or this many times its packed size if that is more: the
JavaScript client fills a xorb with up to 64 MiB of packed chunks.
"""
MAX_BODY_BYTES = 66 << 20
"""Maximum size of a body: 64 MiB, with headers, and the footer that some clients send."""

_HEADER = 8
_FOOTER = b"XETBLOB"
_PLAIN, _LZ4, _GROUPED = range(3)


def unpack_chunks(body: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The chunks of a xorb, in order, as it arrives. Plain ones are not copied. Raises `Invalid` and
    `TooLarge`.
    """
    source = _Source(body)
    unpack = _Unpacker()
    count = total = sent = 0
    while header := bytes(source.take(_HEADER)):
        if header.startswith(_FOOTER):
            source.skip()
            break
        stored, scheme, length = _read_header(header, count)
        count, total, sent = count + 1, total + length, sent + _HEADER + stored
        if count > MAX_XORB_CHUNKS or total > max(MAX_XORB_BYTES, MAX_EXPANSION * sent):
            raise TooLarge(
                f"a xorb has at most {MAX_XORB_CHUNKS:,} chunks and {MAX_XORB_BYTES >> 20} MiB, unpacked,"
                f" or {MAX_EXPANSION} times its packed size"
            )
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
            f"chunk {number} of the xorb is of version {version} and scheme {scheme}, which are not supported"
        )
    if (
        not 0 < length <= MAX_CHUNK_BYTES
        or not 0 < stored <= length
        or (scheme == _PLAIN and stored != length)
    ):
        raise Invalid(
            f"chunk {number} of the xorb declares {stored:,} packed and {length:,} unpacked bytes; a chunk"
            f" has at most {MAX_CHUNK_BYTES:,} bytes, and is not smaller unpacked than packed"
        )
    return stored, scheme, length


class _Unpacker:
    """Unpacks chunks. One object serves a whole xorb: LZ4's state is costly to create."""

    def __init__(self) -> None:
        self._lz4 = lz4.frame.create_decompression_context()

    def __call__(self, data: bytes | memoryview, scheme: int, length: int, number: int) -> bytes | memoryview:
        if scheme == _PLAIN:
            return data
        lz4.frame.reset_decompression_context(self._lz4)
        try:
            # One byte more than declared, to detect chunks that are too long.
            out, used, is_whole = lz4.frame.decompress_chunk(self._lz4, data, max_length=length + 1)
        except RuntimeError as error:
            raise Invalid(f"chunk {number} of the xorb is not valid LZ4 data") from error
        if not is_whole or used != len(data) or len(out) != length:
            raise Invalid(
                f"chunk {number} of the xorb does not unpack to the {length:,} bytes that it announces"
            )
        return ungroup_bytes(out) if scheme == _GROUPED else out


def ungroup_bytes(data: bytes) -> bytes:
    """Restores the order of bytes that were grouped by their position modulo 4."""
    out = bytearray(len(data))
    at = 0
    for group in range(4):
        size = (len(data) - group + 3) // 4
        out[group::4] = data[at : at + size]
        at += size
    return bytes(out)


class _Source:
    """Reads a given number of bytes from a stream of pieces of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")
        self._at = 0

    def take(self, size: int) -> bytes | memoryview:
        """The next `size` bytes, copied only if they are in several pieces; fewer only at the end."""
        first = self._piece[self._at : self._at + size]
        self._at += len(first)
        if len(first) == size:
            return first
        taken = bytes(first)
        while len(taken) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._piece, self._at = memoryview(piece), min(len(piece), size - len(taken))
            taken += self._piece[: self._at]
        return taken

    def skip(self) -> None:
        """Reads and discards the rest."""
        for _ in self._pieces:
            pass
