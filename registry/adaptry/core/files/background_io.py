"""Hashing and flushing on a second thread: both release the interpreter lock, so a second core does them.

`BackgroundHasher` calls a function with each piece of a stream, in order, a few pieces behind.
`BackgroundFlush` flushes a file to disk while it is still being written, so that the final flush is short.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_WORTH_A_THREAD = 1 << 18
_AHEAD = 4
_FLUSH_EVERY = 16 << 20

_flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class BackgroundHasher:
    """Calls `work` with every piece, on another thread. When the block ends, all pieces have been processed.

    If `work` is None, it does nothing. A piece must not change until `drain`, which raises what `work`
    raised.
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
        """Queues a piece; blocks while the queue is full."""
        if self._work is None:
            return
        if len(piece) < _WORTH_A_THREAD:
            self.drain()
            self._work(piece)
            return
        if len(self._pending) == _AHEAD:
            self._pending.popleft().result()
        self._thread = self._thread or _one_thread("beside")
        self._pending.append(self._thread.submit(self._work, piece))

    def drain(self) -> None:
        """Waits until all queued pieces are processed."""
        while self._pending:
            self._pending.popleft().result()


class BackgroundFlush:
    """Flushes the open file `descriptor` from time to time while it grows. The caller still flushes at the
    end.
    """

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
        """Counts `size` more bytes as written. Raises `OSError` if an earlier flush failed."""
        self._unflushed += size
        if self._unflushed < _FLUSH_EVERY or (self._running and not self._running.done()):
            return
        self.wait()
        self._thread = self._thread or _one_thread("flush")
        self._running = self._thread.submit(_flush, self._descriptor)
        self._unflushed = 0

    def wait(self) -> None:
        """Waits for the current flush. Raises `OSError` if it failed: the system reports a lost write only
        once.
        """
        running, self._running = self._running, None
        if running:
            running.result()


def _one_thread(name: str) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # imports logging, which small files do not need

    return ThreadPoolExecutor(1, name)
