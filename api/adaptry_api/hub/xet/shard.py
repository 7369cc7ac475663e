"""Shards: the chunks of xorbs that make up files.

A header, then an entry for every file, in records of 48 bytes; a record that begins with 32 bytes of 0xFF
ends the list. The rest lists each xorb's chunks for deduplication, and is ignored (xet-core:
`metadata_shard`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, TooLarge
from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.hub.xet.hashes import sha256_of, text_of

MAX_SHARD_BYTES = 32 << 20
MAX_FILES = 256
MAX_SEGMENTS = 65_536

TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
VERSION = 2
_RECORD = 48
_END = b"\xff" * 32
BOOKEND = _END + bytes(16)
"""The record that ends a list."""
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30


@dataclass(frozen=True, slots=True)
class XetSegment:
    """The chunks from `start` up to, not including, `end` of one xorb, `length` bytes together."""

    xorb: str
    start: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class XetFile:
    """A file as the client declares it: its SHA-256, and the segments to join."""

    sha256: Digest
    segments: tuple[XetSegment, ...]

    @property
    def size(self) -> int:
        return sum(segment.length for segment in self.segments)


def parse_shard(shard: BinaryIO) -> tuple[XetFile, ...]:
    """The files that a shard describes. Raises `Invalid` and `TooLarge`."""
    header = _record(shard)
    if header[:32] != TAG or int.from_bytes(header[32:40], "little") != VERSION:
        raise Invalid("this is not a shard, or not one of version 2")
    return tuple(_files(shard))


def _files(shard: BinaryIO) -> Iterator[XetFile]:
    files = segments = 0
    while (record := _record(shard))[:32] != _END:
        flags, count = struct.unpack("<II", record[32:40])
        files, segments = files + 1, segments + count
        if files > MAX_FILES or segments > MAX_SEGMENTS:
            raise TooLarge(f"a shard may have at most {MAX_FILES} files and {MAX_SEGMENTS:,} segments")
        if not flags & _HAS_SHA256:
            raise Invalid("a file in the shard has no SHA-256, which is required")
        if not count:
            raise Invalid("a file in the shard is empty; send empty files with the commit")
        found = tuple(_segment(_record(shard)) for _ in range(count))
        for _ in range(count if flags & _HAS_VERIFICATION else 0):
            _record(shard)
        yield XetFile(sha256_of(_record(shard)), found)


def _segment(record: bytes) -> XetSegment:
    _, length, start, end = struct.unpack("<IIII", record[32:])
    return XetSegment(text_of(record[:32]), start, end, length)


def _record(shard: BinaryIO) -> bytes:
    record = shard.read(_RECORD)
    if len(record) < _RECORD:
        raise Invalid("the shard ends before its files do")
    return record
