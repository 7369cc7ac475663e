"""Runs short reads on a few dedicated threads.

Forty threads that take turns at the interpreter are slower than two. A slow disk or database can block these
threads, but not the event loop, and other requests run on the server's other threads. Reads that wait for
another machine have more threads, and each takes one read at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from adaptry.core import tracing
from adaptry.core.lazy_dataclass import dataclass

Answer = TypeVar("Answer")

_THREADS = 2  # two, so that one slow read does not delay all others
_REMOTE_THREADS = 6  # most of them wait


@dataclass(frozen=True, slots=True)
class _Read:
    """A read that waits for a thread. (`Any`: each read has its own type of result.)"""

    run: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


_Outcome = tuple[_Read, Any, Exception | None]


class QuickReads:
    """Runs short reads. `is_available` is False if reads are not short; `is_local` is True if they wait only
    for this machine's disk. `name` is part of the threads' names.

    A thread takes up to `together` waiting reads at once if they are local, and delivers their results
    together: waking the event loop takes a tenth of a millisecond, as long as a read.
    """

    def __init__(self, name: str, *, is_available: bool, is_local: bool, together: int) -> None:
        self.is_available = is_available
        self.is_local = is_local
        self._name, self._together = name, together if is_local else 1
        self._waiting: SimpleQueue[_Read | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, read: Callable[[], Answer]) -> Answer:
        """The result of `read`, or its error. The read begins after this call, so its result is not older."""
        if not self._threads:
            self._start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.put(_Read(tracing.in_this_span(read), loop, answer))
        return await answer

    def close(self) -> None:
        """Waits for the reads that are under way."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for number in range(_THREADS if self.is_local else _REMOTE_THREADS):
            thread = threading.Thread(target=self._serve, name=f"adaptry-{self._name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        while reads := self._next():
            outcomes = [_outcome(read) for read in reads]
            with suppress(RuntimeError):  # the loop is closed, so no caller waits
                reads[0].loop.call_soon_threadsafe(_settle, outcomes)

    def _next(self) -> list[_Read]:
        """Up to `together` waiting reads; may be empty."""
        first = self._waiting.get()
        reads = [first] if first else []
        with suppress(Empty):
            while first and len(reads) < self._together:
                following = self._waiting.get_nowait()
                if following is None:
                    self._waiting.put(None)
                    break
                reads.append(following)
        return reads


def _outcome(read: _Read) -> _Outcome:
    try:
        return read, read.run(), None
    except Exception as error:  # noqa: BLE001  (its request reports it)
        return read, None, error


def _settle(outcomes: list[_Outcome]) -> None:
    for read, answer, error in outcomes:
        if read.answer.done():  # its request was cancelled
            continue
        if error is not None:
            read.answer.set_exception(error)
        else:
            read.answer.set_result(answer)
