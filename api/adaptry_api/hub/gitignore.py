"""Which paths a `.gitignore` leaves out, as git reads one (gitignore(5)): the last line that fits a path decides.

A line that fits a folder leaves out what is in it. Patterns and paths are strangers', so both are bounded, and no pattern goes
back in a name further than to its last star.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

MAX_RULES = 300
_LONGEST = 255
_DEEPEST = 8
_TOKEN = re.compile(r"\\.|\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """A pattern in segments, `**` (None) being any number of them. `keeps` takes a path back in."""

    segments: tuple[re.Pattern[str] | None, ...]
    keeps: bool
    folders_only: bool


def parse_rules(text: str) -> tuple[IgnoreRule, ...]:
    """The lines that mean something; more than `MAX_RULES` are not read."""
    return tuple(islice((line for written in text.splitlines() if (line := _line(written))), MAX_RULES))


def is_ignored(path: str, lines: Sequence[IgnoreRule]) -> bool:
    """Whether the file at `path` is left out, by itself or with a folder it is in; not said of longer or deeper paths
    than any that is stored."""
    parts = path.split("/")
    if len(path) > _LONGEST or len(parts) > _DEEPEST:
        return False
    return any(_decided(parts[:depth], lines, depth < len(parts)) for depth in range(1, len(parts) + 1))


def _decided(parts: Sequence[str], lines: Sequence[IgnoreRule], is_folder: bool) -> bool:
    for line in reversed(lines):
        if (is_folder or not line.folders_only) and _fits(parts, line.segments):
            return not line.keeps
    return False


def _line(written: str) -> IgnoreRule | None:
    text = written.rstrip()
    if not text or text.startswith("#") or len(text) > _LONGEST:
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    segments: list[re.Pattern[str] | None] = []
    if "/" not in text.rstrip("/"):
        segments.append(None)  # a name alone is looked for in every folder
    for segment in text.strip("/").split("/"):
        if segment != "**":
            segments.append(_name(segment))
        elif segments[-1:] != [None]:
            segments.append(None)
    return IgnoreRule(tuple(segments), keeps, folders_only)


def _fits(parts: Sequence[str], segments: Sequence[re.Pattern[str] | None]) -> bool:
    """Whether the segments are the whole path: `reached` are the lengths of its beginnings that fit so far."""
    reached = {0}
    for number, segment in enumerate(segments):
        if segment is None:
            least = 1 if number == len(segments) - 1 else 0  # at the end, it is what is inside
            reached = {end for start in reached for end in range(start + least, len(parts) + 1)}
        else:
            reached = {at + 1 for at in reached if at < len(parts) and segment.fullmatch(parts[at])}
    return len(parts) in reached


def _name(segment: str) -> re.Pattern[str]:
    """`*`, `?` and `[…]` as an expression. A star gives back nothing once what follows it was found, as none that stands
    before another has to; so no name takes long."""
    first, *others = ("".join(_char(token) for token in run) for run in _runs(segment))
    if not others:
        return re.compile(first, re.DOTALL)
    between = "".join(f"(?>.*?{run})" for run in others[:-1])
    return re.compile(f"{first}{between}.*{others[-1]}", re.DOTALL)


def _runs(segment: str) -> list[list[str]]:
    """The tokens between the stars."""
    runs: list[list[str]] = [[]]
    for token in _TOKEN.findall(segment):
        if token.startswith("*"):
            runs.append([])
        else:
            runs[-1].append(token)
    return runs


def _char(token: str) -> str:
    if token == "?":
        return "."
    if token.startswith("\\") and len(token) == 2:
        return re.escape(token[1])
    if not (token.startswith("[") and len(token) > 2):
        return re.escape(token)
    inside = token[1:-1]
    negated = inside.startswith("!")
    inside = inside.removeprefix("!")
    ranges = re.findall(r"(.)-(.)|(.)", inside, re.DOTALL)
    allowed = "".join(
        f"{re.escape(low)}-{re.escape(high)}" if low else re.escape(single)
        for low, high, single in ranges
        if not low or low <= high
    )
    if not allowed:
        return "." if negated else "(?!)"
    return f"[^{allowed}]" if negated else f"[{allowed}]"
