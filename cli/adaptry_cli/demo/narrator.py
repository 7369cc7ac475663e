"""The demo's output: headings, sentences, commands as a user would type them, progress.

A terminal gets colours and bars; a pipe or a log gets plain lines, ten for each long task.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from adaptry.core.progress import Progress as ReportProgress


class Narrator:
    """Writes to stdout; `seconds` since the story began."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
        self._began = time.monotonic()
        self._chapter = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def chapter(self, title: str) -> None:
        self._chapter += 1
        self._console.print(f"\n[bold]{self._chapter}. {title}[/bold]  [dim]({self.seconds:.0f} s)[/dim]")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def command(self, text: str) -> None:
        self._console.print(f"\n$ {text}", style="cyan", markup=False, soft_wrap=True)

    def output(self, text: str) -> None:
        """Prints a command's output unchanged."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def table(self, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def closing(self, lines: list[str]) -> None:
        self._console.print(Panel("\n".join(lines), title="What you saw", expand=False))

    @contextlib.contextmanager
    def progress(self) -> Iterator[ReportProgress]:
        """A bar on a terminal, a line for each tenth elsewhere, while the block runs."""
        if not self._console.is_terminal:
            yield self._lines()
            return
        with Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        ) as shown:
            bars: dict[str, TaskID] = {}

            def move(text: str, done: int, total: int) -> None:
                kind = _kind(text)
                if kind not in bars:
                    bars[kind] = shown.add_task(text, total=total)
                shown.update(bars[kind], description=text, completed=done, total=total)

            yield move

    def _lines(self) -> ReportProgress:
        shown: dict[str, int] = {}

        def move(text: str, done: int, total: int) -> None:
            tenth = 10 * done // max(1, total)
            if tenth > shown.get(_kind(text), 0):
                shown[_kind(text)] = tenth
                self.say(f"  {text}: {done}/{total}")

        return move


def _kind(text: str) -> str:
    """The work that a bar shows, without numbers that change on the way."""
    return re.split(r", loss", text)[0]
