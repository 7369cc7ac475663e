"""Hashes as Xet writes them: four little-endian 64-bit numbers, each printed as 16 hex digits."""

from __future__ import annotations

import re
import struct

from adaptry.digest import Digest
from adaptry.errors import Invalid

_HEX = re.compile(r"[0-9a-f]{64}")
_BYTES = 32


def text_of(data: bytes) -> str:
    """The 64 hex digits that 32 bytes are written with."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", data))


def check_hash(text: str) -> str:
    """`text`, if it can be a hash. Raises `Invalid`."""
    if not _HEX.fullmatch(text):
        raise Invalid(f"not a hash: {text[:80]!a} (64 lower-case hex digits)")
    return text


def sha256_of(data: bytes) -> Digest:
    """A SHA-256, which is kept in the same order of bytes as the others."""
    return Digest(text_of(data[:_BYTES]))
