"""Tables and lists of facts on stdout: bold headings on a terminal (NO_COLOR is respected), plain into pipes.

Nothing is ever cut off: on a narrow terminal the widest column wraps, and if that is not enough, lines do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptry_cli.out import escape_controls

_GAP = 2
_NARROWEST = 24  # characters that the column which wraps has at least
_LONGEST_WORD = 100  # characters: a digest is never broken in two, but there are longer things
_UNLIMITED = 10_000  # the width of a pipe


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Rows under headings; columns empty in every row are left out, those in `right` are right-aligned."""
    cells = [[escape_controls(cell) for cell in row] for row in rows]
    shown = [number for number in range(len(columns)) if any(row[number] for row in cells)]
    widths = {number: max(len(columns[number]), *(len(row[number]) for row in cells)) for number in shown}
    widest = max(shown, key=lambda number: widths[number], default=None)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for number in shown:
        table.add_column(
            columns[number],
            justify="right" if columns[number] in right else "left",
            overflow="fold",
            no_wrap=number != widest,
        )
    for row in cells:
        table.add_row(*(Text(row[number]) for number in shown))
    needed = sum(min(width, _NARROWEST) if number == widest else width for number, width in widths.items())
    _say(table, needed + _GAP * len(shown))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """`name  value` lines, aligned; a value may have several lines."""
    grid = Table.grid(padding=(0, _GAP))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    rows = [(name, "\n".join(escape_controls(line) for line in value.split("\n"))) for name, value in facts]
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    names = max((len(name) for name, _ in rows), default=0)
    words = max((len(word) for _, value in rows for word in value.split()), default=0)
    _say(grid, names + _GAP + min(words, _LONGEST_WORD))


def _say(table: Table, needed: int) -> None:
    """Without the blanks that fill up a table's lines: they wrap on narrow terminals and get into pipes."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, needed) if sys.stdout.isatty() else _UNLIMITED
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=True)
