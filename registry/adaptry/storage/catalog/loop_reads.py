"""Reads on PostgreSQL that run on an event loop, without a thread, and do not block it.

A read is ordinary code, which waits for the database somewhere deep inside. Here it runs in a greenlet: where
it would wait for PostgreSQL's answer (`postgres_pipeline`), it returns to the event loop, which continues it
when the answer has arrived. That takes a third of the processor time of handing a read to a thread and back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, cast

from greenlet import getcurrent, greenlet

Result = TypeVar("Result")


async def run_on_loop(
    read: Callable[[], Result], in_thread: Callable[[Callable[[], Result]], Awaitable[Result]]
) -> Result:
    """The result of `read`, which only reads rows of a catalog on PostgreSQL, and uses the processor for at
    most a millisecond. If it would have to wait for something else, such as a new connection, it is run again
    by `in_thread`.
    """
    reading = _LoopRead(read)
    reading.resume()
    try:
        return cast(Result, await reading.outcome)
    except _NeedsThread:
        return await in_thread(read)
    except asyncio.CancelledError as error:
        if not reading.dead:
            with suppress(BaseException):
                reading.throw(error)
        raise


def is_on_loop() -> bool:
    """Whether the caller is a read on an event loop."""
    return type(getcurrent()) is _LoopRead


def current_run() -> object:
    """Identifies the current thread, or the current read on an event loop."""
    return getcurrent()


def require_thread() -> None:
    """Must be called before anything that may block. A read on an event loop ends here, and is run again in a
    thread.
    """
    if is_on_loop():
        raise _NeedsThread


class LoopSocket:
    """The socket of a connection that is used only by reads on one event loop."""

    def __init__(self, number: int, receive_idle: Callable[[], object]) -> None:
        """`receive_idle` is called when something arrives that no read waits for. Call this in a read on the
        event loop.
        """
        self._number = number
        self._receive_idle = receive_idle
        self._waiting: _LoopRead | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(number, self._wake)

    def wait(self) -> None:
        """Returns when the socket can be read, in the read on the event loop that calls it."""
        reading = getcurrent()
        assert isinstance(reading, _LoopRead) and reading.parent is not None
        assert asyncio.get_running_loop() is self._loop
        self._waiting = reading
        try:
            reading.parent.switch()
        finally:
            self._waiting = None

    def close(self) -> None:
        """Before the socket is closed. May be called from any thread."""
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here:
            self._loop.remove_reader(self._number)
            return
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._loop.remove_reader, self._number)

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.resume()
        else:
            self._receive_idle()


class _NeedsThread(BaseException):
    """Raised in a read on an event loop that would have to wait for anything other than an answer from the
    database.
    """


class _LoopRead(greenlet):
    """A read on an event loop; `outcome` is its result or error."""

    def __init__(self, read: Callable[[], object]) -> None:
        super().__init__(read)
        self.outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Runs it until it waits again, or ends."""
        try:
            result = self.switch()
        except BaseException as error:  # noqa: BLE001  (the caller of `run_on_loop` raises it)
            if not self.outcome.done():  # its request was cancelled
                self.outcome.set_exception(error)
            return
        if self.dead and not self.outcome.done():
            self.outcome.set_result(result)
