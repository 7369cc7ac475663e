"""Runs short reads on a few dedicated threads, or on the event loop if they can wait there.

A slow disk or database can block these threads, but not the event loop, and other requests run on the
server's other threads. Reads that wait for another machine get more threads, each of which takes one read at
a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from adaptry.core import tracing
from adaptry_api.batches import BatchThreads

Answer = TypeVar("Answer")

_THREADS = 2  # two, so that one slow read does not delay all others
_REMOTE_THREADS = 6  # these threads wait most of the time
_ON_LOOP = 6  # reads at once, each with a connection (`PostgresReaders`)


class QuickReads:
    """Runs short reads. `is_available` is False if reads are not short; `is_local` is True if they wait only
    for this machine's disk. `name` is part of the threads' names. A thread takes up to `together` waiting
    reads at once if they are local.
    """

    def __init__(self, name: str, *, is_available: bool, is_local: bool, together: int) -> None:
        self.is_available = is_available
        self.is_local = is_local
        self._on_loop = asyncio.Semaphore(_ON_LOOP)
        # `Any`: each read has its own type of result.
        self._threads: BatchThreads[Callable[[], Any], Any] = BatchThreads(
            name,
            _run_all,
            threads=_THREADS if is_local else _REMOTE_THREADS,
            together=together if is_local else 1,
        )

    async def run(self, read: Callable[[], Answer]) -> Answer:
        """Returns the result of `read`, or raises its error. The read begins after this call, so its result
        is not older than the call.
        """
        return cast(Answer, await self._threads.run(tracing.in_this_span(read)))

    async def run_query(self, read: Callable[[], Answer]) -> Answer:
        """Like `run`, for a read that waits for nothing but the catalog, and computes for less than a
        millisecond. On PostgreSQL, it runs on the event loop (`loop_reads`).
        """
        if self.is_local:
            return await self.run(read)
        from adaptry.storage.catalog.loop_reads import run_on_loop  # needs greenlet, which SQLite does not

        async with self._on_loop:
            return await run_on_loop(tracing.in_this_span(read), self.run)

    def close(self) -> None:
        """Waits until the current reads have finished."""
        self._threads.close()


def _run_all(reads: Sequence[Callable[[], Any]]) -> list[Any]:
    """(`Any`: results of many types, or errors.)"""
    return list(map(_outcome, reads))


def _outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # noqa: BLE001  (its request reports it)
        return error
