"""Progress, as functions of `import adaptry` show it: bars in terminals and notebooks, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from adaptry.core.progress import Progress, no_progress
from adaptry.facade.notebook_bars import in_notebook, notebook_bars
from adaptry.facade.terminal_bars import terminal_bars

ShowProgress: TypeAlias = bool | Progress
"""True shows bars in a terminal or a notebook; False shows none; a function is called as
`progress(text, done, total)`, in bytes."""


@contextmanager
def shown_progress(wanted: ShowProgress) -> Iterator[Progress]:
    """The progress function for an operation, while the block runs."""
    if not isinstance(wanted, bool):
        yield wanted
    elif not wanted:
        yield no_progress
    elif in_notebook():
        with notebook_bars() as bars:
            yield bars
    elif sys.stderr is not None and sys.stderr.isatty():
        with terminal_bars() as bars:
            yield bars
    else:
        yield no_progress
