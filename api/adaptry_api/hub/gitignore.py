"""Which paths a `.gitignore` leaves out, as git reads one (gitignore(5)): the last line that fits a path decides.

A line that fits a folder leaves out what is in it. Matching takes no longer than pattern times path, whoever wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_LINES = 1000
_LONGEST = 255
_ANY = "**"
_TOKEN = re.compile(r"\\.|\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A pattern in segments, `**` being any number of them. `keeps` takes a path back in."""

    segments: tuple[str, ...]
    keeps: bool
    folders_only: bool


def parse_lines(text: str) -> tuple[Line, ...]:
    """The lines that mean something; more than `MOST_LINES` are not read."""
    return tuple(line for written in text.splitlines()[:MOST_LINES] if (line := _line(written)))


def is_ignored(path: str, lines: Sequence[Line]) -> bool:
    """Whether the file at `path` is left out, by itself or with a folder it is in."""
    parts = path.split("/")
    return any(_decided(parts[:depth], lines, depth < len(parts)) for depth in range(1, len(parts) + 1))


def _decided(parts: Sequence[str], lines: Sequence[Line], is_folder: bool) -> bool:
    for line in reversed(lines):
        if (is_folder or not line.folders_only) and _fits(parts, line.segments):
            return not line.keeps
    return False


def _line(written: str) -> Line | None:
    text = written.rstrip()
    if not text or text.startswith("#") or len(text) > _LONGEST:
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    segments = tuple(text.strip("/").split("/"))
    if "/" not in text.rstrip("/"):
        segments = (_ANY, *segments)  # a name alone is looked for in every folder
    return Line(segments, keeps, folders_only)


def _fits(parts: Sequence[str], segments: Sequence[str]) -> bool:
    """Whether the segments are the whole path: `reached` are the lengths of its beginnings that fit so far."""
    reached = {0}
    for number, segment in enumerate(segments):
        if segment == _ANY:
            least = 1 if number == len(segments) - 1 else 0  # at the end, it is what is inside
            reached = {end for start in reached for end in range(start + least, len(parts) + 1)}
        else:
            reached = {at + 1 for at in reached if at < len(parts) and _fits_name(parts[at], segment)}
    return len(parts) in reached


def _fits_name(name: str, segment: str) -> bool:
    """One name against `*`, `?` and `[…]`. On a mismatch only the last star takes one character more."""
    tokens = _TOKEN.findall(segment)
    at = token = 0
    star, resume = -1, 0
    while at < len(name):
        if token < len(tokens) and tokens[token].startswith("*"):
            star, resume = token, at
            token += 1
        elif token < len(tokens) and _is(name[at], tokens[token]):
            at, token = at + 1, token + 1
        elif star >= 0:
            resume += 1
            at, token = resume, star + 1
        else:
            return False
    return all(rest.startswith("*") for rest in tokens[token:])


def _is(char: str, token: str) -> bool:
    if token == "?":
        return True
    if token.startswith("\\"):
        return char == token[1:]
    if not (token.startswith("[") and len(token) > 2):
        return char == token
    inside = token[1:-1]
    negated = inside.startswith("!")
    inside = inside.removeprefix("!")
    ranges = re.findall(r"(.)-(.)|(.)", inside, re.DOTALL)
    found = any(low <= char <= high if low else char == single for low, high, single in ranges)
    return found is not negated
