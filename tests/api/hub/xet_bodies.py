"""Valid and malformed xorbs and shards, built from the published format alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import lz4.frame

TAG = b"HFRepoMetaData\0" + bytes(
    [85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169]
)
XORB = "ab" * 32
"""A xorb's hash names it; that it is a hash of anything is not looked at."""


def chunk(data: bytes, scheme: int = 0, version: int = 0, length: int | None = None) -> bytes:
    """One chunk of a xorb; `length` is its claimed uncompressed length."""
    stored = data
    if scheme == 2:
        data = b"".join(data[k::4] for k in range(4))
    if scheme:
        stored = lz4.frame.compress(data, store_size=False)
    return header(len(stored), scheme, len(data) if length is None else length, version) + stored


def header(stored: int, scheme: int, length: int, version: int = 0) -> bytes:
    """The header of a chunk."""
    return bytes([version]) + stored.to_bytes(3, "little") + bytes([scheme]) + length.to_bytes(3, "little")


def hash_bytes(text: str) -> bytes:
    """The bytes of a hash that is written as `text`: each group of 8 bytes is reversed."""
    data = bytes.fromhex(text)
    return b"".join(data[at : at + 8][::-1] for at in range(0, 32, 8))


Segment = tuple[str, int, int, int]
"""Xorb, bytes, first chunk, chunk after the last."""


def file_entry(
    content: bytes | str, segments: Sequence[Segment], flags: int = 3 << 30, count: int | None = None
) -> bytes:
    """The entry of one file in a shard, with the SHA-256 of its content, or a claimed one."""
    sha256 = content if isinstance(content, str) else hashlib.sha256(content).hexdigest()
    said = bytes(32) + struct.pack("<IIQ", flags, len(segments) if count is None else count, 0)
    for xorb, length, start, end in segments:
        said += hash_bytes(xorb) + struct.pack("<IIII", 0, length, start, end)
    if flags & 1 << 31:
        said += bytes(48) * len(segments)
    if flags & 1 << 30:
        said += hash_bytes(sha256) + bytes(16)
    return said


def shard(*files: bytes, tag: bytes = TAG, version: int = 2) -> bytes:
    """A shard with those files, without entries for xorbs."""
    end = b"\xff" * 32 + bytes(16)
    return tag + struct.pack("<QQ", version, 0) + b"".join(files) + end + end
