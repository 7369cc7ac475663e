"""The paths that a revision may contain, safe on every system."""

from __future__ import annotations

import re

from adaptry.core.errors import InvalidPath
from adaptry.core.lazy_pattern import lazy_pattern

MAX_DEPTH = 8
MAX_PATH = 255

_SEGMENT = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OTHERS = lazy_pattern(r"[^A-Za-z0-9._-]+")
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))]
)


def check_path(path: str) -> str:
    """Returns `path` if a revision may contain it: 1 to 8 plain segments, safe on every system.

    Raises `InvalidPath`. Paths are never decoded, here or later: `%2e` is refused because of its `%`.
    """
    segments = path.split("/")
    if is_too_deep(path):
        raise InvalidPath(
            f"file name too long or too deep: {path[:80]!a} (at most {MAX_DEPTH} segments,"
            f" {MAX_PATH} characters)"
        )
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment.endswith(".") or ".." in segment:
            raise InvalidPath(
                f"not an allowed file name: {path[:80]!a}; {_renaming(segments)}each part of a path has ASCII"
                " letters, digits, '.', '_' and '-', begins with a letter or digit, and has at most 128"
                " characters"
            )
        if segment.split(".")[0].lower() in _WINDOWS_DEVICES:
            raise InvalidPath(f"{path[:80]!a} is a device name on Windows; rename the file")
    return path


def _renaming(segments: list[str]) -> str:
    """`rename it, for example to my-style.safetensors: `, for a file outside folders; else empty."""
    stem = _OTHERS.sub("-", segments[-1]).replace("..", ".").lstrip("._-")
    name = re.sub(r"-+(?=\.|$)", "", stem).rstrip(".")
    if len(segments) > 1 or not _SEGMENT.fullmatch(name) or ".." in name:
        return ""
    return f"rename it, for example to {name}: "


def is_too_deep(path: str) -> bool:
    """Whether a path has too many segments or characters."""
    return len(path) > MAX_PATH or path.count("/") >= MAX_DEPTH
