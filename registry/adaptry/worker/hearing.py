"""Hearing of a registry's events on a thread of its own, for who lives on an event loop.

`wait` comes back when something happened, or after a while all the same: a registry that cannot be reached, or has no
feed, tells nothing, and who listens looks again anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from adaptry.errors import AdaptryError
from adaptry.registry import Registry

_WAIT = 25.0  # seconds that one question waits at the registry
_PAUSE = 5.0  # seconds after a question that was not answered


class Ear:
    """Listens from the first `wait` on, until the process ends."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._happened = asyncio.Event()
        self._thread: threading.Thread | None = None

    async def wait(self, seconds: float) -> bool:
        """Until something happened that was not waited for yet, at most so long; whether anything did."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._listen, args=(loop,), name="adaptry-events", daemon=True
            )
            self._thread.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._happened.wait(), seconds)
        happened = self._happened.is_set()
        self._happened.clear()
        return happened

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        seq: int | None = None
        while not loop.is_closed():
            try:
                news = self._registry.events(seq, wait=_WAIT if seq is not None else 0.0)
            except AdaptryError:
                time.sleep(_PAUSE)
                continue
            if news.items and seq is not None:
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(self._happened.set)
            seq = news.seq
