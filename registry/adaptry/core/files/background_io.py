"""Hashing and flushing on a second thread: both release the interpreter lock, so a second core does them.

`BackgroundHasher` calls a function with each piece of a stream, in order, a few pieces behind.
`BackgroundFlush` flushes what was written to the disk while more is written, so that the flush at the end has
little left to do.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_WORTH_A_THREAD = 1 << 18
_AHEAD = 4
_FLUSH_EVERY = 16 << 20

_flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # not everywhere


class BackgroundHasher:
    """Calls `work` with every piece, on a thread of its own; at the end of the block it has seen all.

    Without work it does nothing. A piece must not change until `drain`, which raises what `work` raised.
    """

    def __init__(self, work: Callable[[memoryview], object] | None) -> None:
        self._work = work
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._thread.shutdown()
        if error is None:
            self.drain()

    def update(self, piece: memoryview) -> None:
        """Hands a piece over; waits while several are waiting already."""
        if self._work is None:
            return
        if len(piece) < _WORTH_A_THREAD:
            self.drain()
            self._work(piece)
            return
        if len(self._pending) == _AHEAD:
            self._pending.popleft().result()
        self._thread = self._thread or ThreadPoolExecutor(1, "beside")
        self._pending.append(self._thread.submit(self._work, piece))

    def drain(self) -> None:
        """Waits until the work on everything given so far is done."""
        while self._pending:
            self._pending.popleft().result()


class BackgroundFlush:
    """Flushes the open file `descriptor` now and then while it grows. The publisher still flushes last."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unflushed = 0
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._thread.shutdown()
        if error is None:
            self.wait()

    def add_written(self, size: int) -> None:
        """`size` more bytes are in the file. Raises `OSError` where an earlier flush failed."""
        self._unflushed += size
        if self._unflushed < _FLUSH_EVERY or (self._running and not self._running.done()):
            return
        self.wait()
        self._thread = self._thread or ThreadPoolExecutor(1, "flush")
        self._running = self._thread.submit(_flush, self._descriptor)
        self._unflushed = 0

    def wait(self) -> None:
        """Waits for the flush under way. Raises `OSError` if it failed: a lost write is reported once."""
        running, self._running = self._running, None
        if running:
            running.result()
