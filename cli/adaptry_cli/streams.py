"""Prepares the standard streams of every command: open, and able to write any text.

A stream that the caller closed (`>&-`) is replaced by the null device. A stream whose encoding is not a UTF,
as of a redirected Windows console, gets `->` for an arrow and `\\u4e2d` for a character that it lacks.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

_REPLACED = "adaptry.plain"
_PLAIN = {
    "→": "->", "←": "<-", "↑": "^", "↓": "v", "≤": "<=", "≥": ">=", "≠": "!=", "…": "...", "×": "x", "·": "*",
    "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "•": "*",
    "─": "-", "│": "|", "├": "|", "└": "`", "━": "-",
    "α": "alpha", "Δ": "delta", "σ": "sigma", "Σ": "sum",
}  # fmt: skip


def open_standard_streams() -> None:
    """Replaces closed streams, and lets the others take characters that their encoding lacks."""
    codecs.register_error(_REPLACED, _replace)
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            is_read = name == "stdin"
            descriptor = os.open(os.devnull, os.O_RDONLY if is_read else os.O_WRONLY)
            setattr(sys, name, os.fdopen(descriptor, "r" if is_read else "w"))
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper) and not is_utf(stream):
            stream.reconfigure(errors=_REPLACED)


def is_utf(stream: TextIO) -> bool:
    """Whether the stream can take every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")


def encodable(text: str, stream: TextIO) -> str:
    """`text`, with characters replaced that the stream's encoding lacks."""
    if is_utf(stream) or text.isascii():
        return text
    codecs.register_error(_REPLACED, _replace)
    return text.encode(stream.encoding, _REPLACED).decode(stream.encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in lacking)
    return plain, error.end
