"""Repairs a single flipped bit by trying each bit until the digest matches; only for small data."""

from __future__ import annotations

from hashlib import sha256

from adaptry.core.digest import Digest

MAX_BYTES = 16 << 10
"""Maximum size in bytes; for larger files, trying every bit takes too long."""


def undo_bit_flip(data: bytes, digest: Digest) -> bytes | None:
    """The bytes with `digest`, if `data` differs from them by a single bit; else None."""
    if len(data) > MAX_BYTES:
        return None
    before = sha256()  # hash of the bytes before the byte that is being changed
    damaged_file = bytes.fromhex(digest.hex)
    tried = bytearray(data)
    for at in range(len(tried)):
        rest = memoryview(tried)[at:]
        for bit in range(8):
            tried[at] ^= 1 << bit
            hasher = before.copy()
            hasher.update(rest)
            if hasher.digest() == damaged_file:
                return bytes(tried)
            tried[at] ^= 1 << bit
        before.update(rest[:1])
    return None
