"""Reads a text from the head of a GGUF file, without the gguf package.

`adaptry export` records in the file for which engine it prepared the adapter (`PREPARED_FOR`), so that a
worker, which has neither the package nor torch, can tell its files from those of a plain converter.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

PREPARED_FOR = "adaptry.prepared_for"
"""The key of the engine that serves the adapter in the file as it was trained: `adaptry export` has repaired
it where needed, and refuses what it cannot repair."""

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; strings and arrays state their length."""
_LARGEST = 16 << 20
_MOST_KEYS = 10_000


def read_gguf_text(file: Path, key: str) -> str | None:
    """The text under `key`; None without it, or if the file is not GGUF. Raises `OSError`."""
    with file.open("rb") as stream:
        try:
            if stream.read(4) != _MAGIC:
                return None
            _, _, count = struct.unpack("<IQQ", stream.read(20))
            for _ in range(min(count, _MOST_KEYS)):
                found = _string(stream)
                (kind,) = struct.unpack("<I", stream.read(4))
                if found == key.encode() and kind == _STRING:
                    return _string(stream).decode()
                _skip(stream, kind)
        except (struct.error, UnicodeDecodeError, KeyError):
            return None
    return None


def _string(stream: IO[bytes]) -> bytes:
    return stream.read(min(_length(stream), _LARGEST))


def _length(stream: IO[bytes]) -> int:
    (length,) = struct.unpack("<Q", stream.read(8))
    return int(length)


def _skip(stream: IO[bytes], kind: int) -> None:
    """Skips a value. Raises `KeyError` for an unknown type."""
    if kind == _STRING:
        _string(stream)
        return
    if kind != _ARRAY:
        stream.read(_SIZES[kind])
        return
    (of,) = struct.unpack("<I", stream.read(4))
    count = _length(stream)
    if of == _STRING:
        for _ in range(count):
            _string(stream)
    else:
        stream.read(min(count * _SIZES[of], _LARGEST))
