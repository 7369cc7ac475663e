"""Runs short work on a few dedicated threads. Each thread takes the waiting work in batches.

Forty threads that compete for the interpreter lock are slower than two. The results of a batch are delivered
together, because waking the event loop takes 0.1 ms, as long as a short read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from adaptry.core.errors import copies_of
from adaptry.core.lazy_dataclass import dataclass

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _PendingWork(Generic[Work, Answer]):
    """Work that waits for a thread."""

    work: Work
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer]


class BatchThreads(Generic[Work, Answer]):
    """A pool of `threads` threads, named after `name`. Each takes batches of up to `together` pieces of work.

    `run_all` runs a batch, and returns the result or the error of each piece.
    """

    def __init__(
        self,
        name: str,
        run_all: Callable[[Sequence[Work]], Sequence[Answer | Exception]],
        *,
        threads: int,
        together: int,
    ) -> None:
        self._name, self._run_all = name, run_all
        self._count, self._together = threads, together
        self._waiting: SimpleQueue[_PendingWork[Work, Answer] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, work: Work) -> Answer:
        """Runs the work on a thread, after this call, and returns its result or raises its error."""
        if not self._threads:
            self._start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.put(_PendingWork(work, loop, answer))
        return await answer

    def close(self) -> None:
        """Ends the threads after they have finished all submitted work."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for number in range(self._count):
            thread = threading.Thread(target=self._serve, name=f"adaptry-{self._name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        while batch := self._next():
            outcomes = self._outcomes([one.work for one in batch])
            settled = list(zip(batch, outcomes, strict=True))
            with suppress(RuntimeError):  # the loop is closed, so no caller waits
                batch[0].loop.call_soon_threadsafe(_resolve_futures, settled)

    def _outcomes(self, batch: Sequence[Work]) -> Sequence[Answer | Exception]:
        try:
            return self._run_all(batch)
        except Exception as error:  # noqa: BLE001  (each request of the batch reports it)
            return copies_of(error, len(batch))
        except BaseException as error:  # noqa: BLE001  (a panic in Rust must not end the thread)
            return [RuntimeError(f"{type(error).__name__}: {error}") for _ in batch]

    def _next(self) -> list[_PendingWork[Work, Answer]]:
        """Waits for work and returns up to `together` pieces; none after `close`."""
        first = self._waiting.get()
        batch = [first] if first else []
        with suppress(Empty):
            while first and len(batch) < self._together:
                following = self._waiting.get_nowait()
                if following is None:
                    self._waiting.put(None)
                    break
                batch.append(following)
        return batch


def _resolve_futures(settled: Sequence[tuple[_PendingWork[Work, Answer], Answer | Exception]]) -> None:
    for waiting, outcome in settled:
        if waiting.answer.done():  # its request was cancelled
            continue
        if isinstance(outcome, Exception):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)
