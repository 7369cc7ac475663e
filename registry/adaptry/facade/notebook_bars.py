"""Progress bars in a notebook: HTML that every front end draws. Removed when done."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from threading import Lock
from typing import Any

from adaptry.core.display import format_size, html_text
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress

_SECONDS_BETWEEN_UPDATES = 0.1


def in_notebook() -> bool:
    """Whether this code runs in a kernel whose front end draws HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def notebook_bars() -> Iterator[Progress]:
    """Bars under the cell while the block runs; nothing where no progress is reported."""
    ipython: Any = importlib.import_module("IPython.display")  # untyped, and there in a notebook only
    handles: list[Any] = []

    def show(text: str) -> None:
        if handles:
            handles[0].update(ipython.HTML(text))
        elif text:
            handles.append(ipython.display(ipython.HTML(text), display_id=True))

    try:
        yield NotebookBars(show)
    finally:
        show("")


@dataclass(slots=True)
class NotebookBars:
    """Draws each file or step that is not done, with `show`, at most ten times a second."""

    show: Callable[[str], None]
    _rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    _shown_at: float = -_SECONDS_BETWEEN_UPDATES
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, text: str, done: int, total: int) -> None:
        with self._lock:
            is_first = text not in self._rows
            self._rows[text] = (done, total)
            now = time.monotonic()
            if not is_first and now - self._shown_at < _SECONDS_BETWEEN_UPDATES:
                return
            self._shown_at = now
            self.show(
                "".join(
                    _bar_html(text, done, total) for text, (done, total) in self._rows.items() if done < total
                )
            )


def _bar_html(text: str, done: int, total: int) -> str:
    counted = f"{format_size(done)} of {format_size(total)}"
    return f"<div><progress value='{done}' max='{total}'></progress> {html_text(text)} {counted}</div>"
