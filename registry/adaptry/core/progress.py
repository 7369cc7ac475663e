"""How long work tells that it goes on: a text, the bytes done, the bytes in all.

The core calls it now and then from whatever thread works; only an edge knows of bars and terminals.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(text, done, total)`: bytes, with `total` known from the start and `done` never falling."""


def no_progress(text: str, done: int, total: int) -> None:
    """Tells nobody."""
