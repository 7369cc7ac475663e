"""Hearing of a registry's events on a thread of its own, for who lives on an event loop.

`wait` comes back with whose adapters something happened to, or after a while all the same: a registry that cannot be
reached, or has no feed, tells nothing, and who listens looks again anyway. Only the namespaces that are of interest are
listened to, so that what others do wakes nobody here.
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

_WAIT = 25.0  # seconds that one question waits at the registry
_PAUSE = 5.0  # seconds after a question that was not answered


class EventListener:
    """Listens from the first `listen_to` on, until the process ends."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._has_news = asyncio.Event()
        self._changed: set[AdapterName] = set()
        self._globs: tuple[str, ...] = ()
        self._thread: threading.Thread | None = None

    def subscribe(self, about: Collection[AdapterName]) -> None:
        """The namespaces of these adapters, from the next question on, and no others. Nothing changes where there are none."""
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
        """Until something happened that was not waited for yet, at most so long: the adapters that it was about, others of
        their namespaces among them. None where it is not known what happened."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                seconds
            ):  # unlike wait_for, it never takes a cancellation for an answer
                await self._has_news.wait()
        self._has_news.clear()
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        seq: int | None = None
        epoch: str | None = None
        while not loop.is_closed():
            try:
                news = self._registry.events(seq, wait=_WAIT if seq is not None else 0.0, about=self._globs)
            except AdaptryError:
                time.sleep(_PAUSE)
                continue
            changed = affected_adapters(news)
            if (
                seq is None or changed or news.seq < seq or news.epoch != epoch
            ):  # what came before the first answer is not told
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(self._notify, changed)
            seq, epoch = news.seq, news.epoch

    def _notify(self, changed: Collection[AdapterName]) -> None:
        self._changed.update(changed)
        self._has_news.set()
