"""Hashes of Xet: keyed BLAKE3 of a chunk's bytes, and how 32 bytes are written as text.

The text is four little-endian 64-bit numbers, each as 16 hex digits (xet-core: `merklehash::data_hash`).
"""

from __future__ import annotations

import re
import struct

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid

BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")


def text_of(data: bytes) -> str:
    """The 64 hex digits for 32 bytes."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", data))


def bytes_of(text: str) -> bytes:
    """The 32 bytes for 64 hex digits."""
    return struct.pack("<4Q", *(int(text[at : at + 16], 16) for at in range(0, 64, 16)))


def check_hash(text: str) -> str:
    """`text`, if it has the form of a hash. Raises `Invalid`."""
    if not _HEX.fullmatch(text):
        raise Invalid(f"not a hash: {text[:80]!a} (64 lower-case hex digits)")
    return text


def sha256_of(data: bytes) -> Digest:
    """The text of a SHA-256, in the same byte order as the other hashes."""
    return Digest(text_of(data[:BYTES]))


def chunk_hash(data: bytes | memoryview) -> bytes:
    """The hash of a chunk, 32 bytes."""
    from blake3 import blake3  # servers without such uploads do not need it

    return blake3(data, key=_CHUNK_KEY).digest()


def is_dedup_candidate(hash: bytes) -> bool:
    """Whether clients query a chunk with this hash anywhere in a file; they query others only at a file's
    start (xet-core: `hash_is_global_dedup_eligible`).
    """
    return int.from_bytes(hash[24:], "little") % 1024 == 0
