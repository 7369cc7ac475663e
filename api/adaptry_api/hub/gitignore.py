"""Which paths a `.gitignore` leaves out, as git reads one (gitignore(5)): the last line that fits a path decides.

A line that fits a folder leaves out what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_LINES = 1000


@dataclass(frozen=True, slots=True)
class Line:
    """A pattern: of the whole path where it has a slash, else of any name in it. `keeps` takes a path back in."""

    pattern: re.Pattern[str]
    keeps: bool
    folders_only: bool


def parse_lines(text: str) -> tuple[Line, ...]:
    """The lines that mean something; more than `MOST_LINES` are not read."""
    return tuple(line for written in text.splitlines()[:MOST_LINES] if (line := _line(written)))


def is_ignored(path: str, lines: Sequence[Line]) -> bool:
    """Whether the file at `path` is left out, by itself or with a folder it is in."""
    parts = path.split("/")
    return any(
        _decided("/".join(parts[:depth]), lines, is_folder=depth < len(parts))
        for depth in range(1, len(parts) + 1)
    )


def _decided(path: str, lines: Sequence[Line], *, is_folder: bool) -> bool:
    for line in reversed(lines):
        if (is_folder or not line.folders_only) and line.pattern.fullmatch(path):
            return not line.keeps
    return False


def _line(written: str) -> Line | None:
    text = written.rstrip()
    if not text or text.startswith("#") or len(text) > 255:
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    is_anchored = "/" in text
    body = _expression(text.lstrip("/"))
    return Line(re.compile(body if is_anchored else f"(?:.*/)?{body}", re.DOTALL), keeps, folders_only)


def _expression(text: str) -> str:
    """A pattern as a regular expression, without a way to make it slow: runs of stars are one."""
    found: list[str] = []
    for token in re.findall(r"\*\*/|/\*\*|\*+|\?|\[!?[^\]/]+\]|.", text, re.DOTALL):
        match token:
            case "**/":
                found.append("(?:.*/)?")
            case "/**":
                found.append("/.*")
            case "?":
                found.append("[^/]")
            case _ if token.startswith("*"):
                found.append("[^/]*")
            case _ if token.startswith("[") and len(token) > 1:
                inside = token[1:-1]
                negated = inside.startswith("!")
                found.append(
                    f"[{'^' if negated else ''}{re.escape(inside.removeprefix('!')).replace(chr(92) + '-', '-')}]"
                )
            case _:
                found.append(re.escape(token))
    return "".join(found)
