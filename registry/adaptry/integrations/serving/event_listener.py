"""Listens to a registry's events on a thread, for code that runs on an asyncio event loop.

`wait` returns the adapters with new events, or times out: a registry that is down or has no event feed sends
none, so the caller must also check from time to time. Only events of the subscribed namespaces are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Collection

from adaptry.core.errors import AdaptryError
from adaptry.core.refs import AdapterName
from adaptry.operations.watch import affected_adapters
from adaptry.registry.events import MAX_GLOBS
from adaptry.registry.interface import Registry

_LONG_POLL_SECONDS = 25.0  # seconds of long polling per request
_RETRY_DELAY = 5.0  # seconds after a failed request


class EventListener:
    """Listens from the first `subscribe` until the process ends."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._has_news = asyncio.Event()
        self._changed: set[AdapterName] = set()
        self._globs: tuple[str, ...] = ()
        self._thread: threading.Thread | None = None
        self.seq: int | None = None
        """The number of the newest event that was read; None before the first answer."""

    def subscribe(self, about: Collection[AdapterName]) -> None:
        """Subscribes to only these adapters' namespaces, if any, from the next request on."""
        globs = tuple(sorted({f"{name.namespace}/*" for name in about}))
        if not globs:
            return
        self._globs = globs if len(globs) <= MAX_GLOBS else ()
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._listen, args=(loop,), name="adaptry-events", daemon=True
            )
            self._thread.start()

    async def wait(self, seconds: float) -> frozenset[AdapterName]:
        """Waits up to `seconds` for new events. Returns the adapters that they are about, which may include
        others of the subscribed namespaces. The result is empty after a timeout, or if the changed adapters
        are unknown."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # unlike wait_for, it never swallows a cancellation
                await self._has_news.wait()
        self._has_news.clear()
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        seq: int | None = None
        epoch: str | None = None
        while not loop.is_closed():
            try:
                news = self._registry.events.read(
                    seq, wait=_LONG_POLL_SECONDS if seq is not None else 0.0, adapters=self._globs
                )
            except AdaptryError:
                time.sleep(_RETRY_DELAY)
                continue
            changed, self.seq = affected_adapters(news), news.seq
            if (
                seq is None or changed or news.seq < seq or news.epoch != epoch
            ):  # events before the first reply are unknown: notify
                with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                    loop.call_soon_threadsafe(self._notify, changed)
            seq, epoch = news.seq, news.epoch

    def _notify(self, changed: Collection[AdapterName]) -> None:
        self._changed.update(changed)
        self._has_news.set()
