"""Reads a text from the header of a GGUF file, without the gguf package.

`adaptry export` records in the file for which engine it prepared the adapter (`PREPARED_FOR`). This lets a
worker, which has neither the package nor torch, tell these files from those of a plain converter.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

PREPARED_FOR = "adaptry.prepared_for"
"""The key of the engine that serves the adapter in the file as it was trained: `adaptry export` has repaired
it where needed, and refuses what it cannot repair."""

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; strings and arrays state their length."""
_HEAD = 4 << 20
"""Bytes of a file that are read. Adapters have a few kilobytes of metadata; a file may claim any amount."""


def read_gguf_text(file: Path, key: str) -> str | None:
    """The text under `key`; None if the key is missing, the file is not GGUF, or the metadata extend beyond
    the first 4 MiB. Raises `OSError`.
    """
    with file.open("rb") as opened:
        stream = BytesIO(opened.read(_HEAD))
    try:
        if _take(stream, len(_MAGIC)) != _MAGIC:
            return None
        _, _, count = struct.unpack("<IQQ", _take(stream, 20))
        for _ in range(count):
            found = _string(stream)
            kind = _number(stream, "<I")
            if found == key.encode() and kind == _STRING:
                return _string(stream).decode()
            _skip(stream, kind)
    except (EOFError, UnicodeDecodeError, KeyError):
        return None
    return None


def _take(stream: BytesIO, size: int) -> bytes:
    """The next bytes. Raises `EOFError` if there are fewer."""
    data = stream.read(min(size, _HEAD))
    if len(data) < size:
        raise EOFError
    return data


def _number(stream: BytesIO, format: str) -> int:
    (number,) = struct.unpack(format, _take(stream, struct.calcsize(format)))
    return int(number)


def _string(stream: BytesIO) -> bytes:
    return _take(stream, _number(stream, "<Q"))


def _skip(stream: BytesIO, kind: int) -> None:
    """Skips a value. Raises `KeyError` for an unknown type."""
    if kind == _STRING:
        _string(stream)
        return
    if kind != _ARRAY:
        _take(stream, _SIZES[kind])
        return
    of, count = _number(stream, "<I"), _number(stream, "<Q")
    if of == _STRING:
        for _ in range(count):
            _string(stream)
    else:
        _take(stream, count * _SIZES[of])
