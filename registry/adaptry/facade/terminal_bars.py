"""Progress bars in a terminal: one for each file or step, removed when the work is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from adaptry.core.display import escape_controls
from adaptry.core.progress import Progress


@contextmanager
def terminal_bars() -> Iterator[Progress]:
    """Bars on stderr while the block runs."""
    from rich import progress as bars
    from rich.console import Console

    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # otherwise what is printed to a file would go to stderr
    ) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def update_bar(text: str, done: int, total: int) -> None:
            task = tasks.get(text)
            if task is None:
                task = tasks[text] = shown.add_task(escape_controls(text), total=total)
            shown.update(task, completed=done, total=total, visible=done < total)

        yield update_bar
