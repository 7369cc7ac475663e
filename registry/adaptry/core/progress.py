"""Progress reports of long operations: a text, the bytes done, the bytes in total.

The core calls such a function from time to time, from the working thread; only the edges know terminals.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(text, done, total)`, in bytes. `total` is known from the start; `done` never decreases."""


def no_progress(text: str, done: int, total: int) -> None:
    """A progress callback that reports nothing."""
