"""Tables and lists of facts on stdout, laid out for the terminal; complete and unwrapped into pipes.

On a narrow terminal, texts that a table names as `cut` end in an ellipsis, then the columns named in `drop`
are left out, the first of them first, and a line on stderr names them. Numbers are never cut.
Colour marks what needs attention (`styles.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

import click
from rich.cells import cell_len, set_cell_size

from adaptry.core.lazy_dataclass import dataclass
from adaptry_cli.output import escape_controls, print_err
from adaptry_cli.styles import STYLES, paint

_GAP = 2
_MIN_WIDTH = 12  # characters that a text which is cut keeps before columns are left out
_SHORTEST_LEFT = 6  # and after that
_ELLIPSIS = "…"
_NUMBER = re.compile(r"[-+]?[\d.]")


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Which columns are shown (by position), how wide each is, and which are left out."""

    shown: tuple[int, ...]
    widths: Mapping[int, int]
    dropped: tuple[int, ...]


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    *,
    cut: Sequence[str] = (),
    drop: Sequence[str] = (),
    empty: str | None = None,
) -> None:
    """Rows under headings; columns empty in every row are left out, those in `right` are right-aligned.
    `empty` is the message if there are no rows.
    """
    cells = [[_one_line(cell) for cell in row] for row in rows]
    if not cells and empty is not None:
        print_err(empty)
    width = terminal_width()
    layout = lay_out(columns, cells, width, cut=cut, drop=drop)
    for line in table_lines(columns, cells, layout, right):
        click.echo(line, file=sys.stdout, color=True)
    if layout.dropped:
        names = ", ".join(columns[number] for number in layout.dropped)
        print_err(f"left out to fit {width} characters: {names}; --json has them")


def lay_out(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    cut: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> TableLayout:
    """The columns and texts that fit into `width` characters; None means no limit."""
    shown = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    natural = {
        number: max(cell_len(columns[number]), *(cell_len(row[number]) for row in rows)) for number in shown
    }
    if width is None:
        return TableLayout(tuple(shown), natural, ())
    dropped: list[int] = []
    may_drop = [columns.index(name) for name in drop]
    shortest = {
        number: max(cell_len(columns[number]), *(_shortest(row[number]) for row in rows))
        for number in map(columns.index, cut)
        if number in shown
    }
    while True:
        widths = _shrink_widths({number: natural[number] for number in shown}, shortest, width)
        if _total(widths) <= width:
            break
        candidate = next((number for number in may_drop if number in shown), None)
        if candidate is None:
            widths = _shrink_widths(widths, dict.fromkeys(shortest, _SHORTEST_LEFT), width)
            break
        shown.remove(candidate)
        dropped.append(candidate)
    return TableLayout(tuple(shown), widths, tuple(sorted(dropped)))


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], layout: TableLayout, right: Sequence[str] = ()
) -> list[str]:
    """The heading and the rows, with colours where the output has them."""
    if not layout.shown:
        return []
    lines = []
    for position, row in enumerate([columns, *rows]):
        parts = []
        for number in layout.shown:
            size = layout.widths[number]
            text = shorten(row[number], size)
            blanks = " " * (size - cell_len(text))
            style = "heading" if position == 0 else STYLES.get(text, "")
            painted = paint(text, style)
            parts.append(blanks + painted if columns[number] in right else painted + blanks)
        lines.append((" " * _GAP).join(parts).rstrip())
    return lines


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """`name  value` lines, aligned; a value may have several lines, and wraps below itself."""
    rows = [(name, [escape_controls(line) for line in value.split("\n")]) for name, value in facts]
    names = max((cell_len(name) for name, _ in rows), default=0) + _GAP
    width = terminal_width()
    for name, values in rows:
        lines = [wrapped for value in values for wrapped in wrap(value, width and max(width - names, 20))]
        for position, line in enumerate(lines):
            label = paint(name, "heading") + " " * (names - cell_len(name)) if position == 0 else " " * names
            click.echo((label + _painted_line(line)).rstrip(), file=sys.stdout, color=True)


def print_wrapped(lines: Iterable[str]) -> None:
    """Prints lines, wrapped at blanks on a terminal. A severity at the beginning of a line is coloured."""
    width = terminal_width()
    for line in lines:
        for wrapped in wrap(escape_controls(line), width):
            click.echo(_painted_line(wrapped), file=sys.stdout, color=True)


def wrap(text: str, width: int | None) -> list[str]:
    """Lines of at most `width`, broken at blanks. Later lines are indented like the first one, and those of a
    finding two characters further. A longer word stays whole.
    """
    if width is None or cell_len(text) <= width:
        return [text]
    indent = re.match(r" *(?:→ )?", text)
    is_finding = re.match(r" *(?:blocks|warns|notes): ", text)
    margin = " " * ((len(indent[0]) if indent else 0) + (2 if is_finding else 0))
    lines: list[str] = []
    line = ""
    for word in re.findall(r"\s*\S+", text):
        if line and cell_len(line + word) > width:
            lines.append(line)
            line = margin + word.lstrip()
        else:
            line += word
    return [*lines, line]


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters, with an ellipsis for what is missing; no number is cut in two."""
    if cell_len(text) <= width:
        return text
    head = set_cell_size(text, width - 1).rstrip()
    word = re.search(r"\S*$", head)
    if word and text[len(head) : len(head) + 1].strip() and _NUMBER.match(word[0]):
        head = head[: word.start()].rstrip(" ,")
    return head + _ELLIPSIS


def terminal_width() -> int | None:
    """The terminal's width in characters; None if the output is not a terminal."""
    if sys.stdout.isatty() or ("FORCE_COLOR" in os.environ and "COLUMNS" in os.environ):
        return shutil.get_terminal_size().columns
    return None


def _shrink_widths(widths: dict[int, int], shortest: Mapping[int, int], width: int) -> dict[int, int]:
    """Column widths after shrinking the widest shrinkable column repeatedly until all fit."""
    widths = dict(widths)
    while _total(widths) > width:
        wide = [number for number in widths if widths[number] > shortest.get(number, widths[number])]
        if not wide:
            break
        widths[max(wide, key=lambda number: widths[number])] -= 1
    return widths


def _shortest(cell: str) -> int:
    """The characters that a text needs: 12, or its first item if that is shorter or has a number."""
    first, comma, _ = cell.partition(", ")
    length = cell_len(first) + (2 if comma else 0)
    has_number = any(_NUMBER.match(word) for word in first.split())
    return length if has_number else min(length, _MIN_WIDTH)


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + _GAP * max(0, len(widths) - 1)


def _one_line(cell: str) -> str:
    return escape_controls(cell if cell.isprintable() else " ".join(cell.split()))


def _painted_line(line: str) -> str:
    """A line of a value; a severity at its beginning is coloured, as in `blocks: …`."""
    word, colon, rest = line.partition(":")
    style = STYLES.get(word, "") if colon else STYLES.get(line, "")
    return paint(word, style) + colon + rest if style else line
