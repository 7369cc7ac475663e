"""Hashing on a second thread: it releases the interpreter lock, so a second core does it.

`BackgroundHasher` calls a function with each piece of a stream, in order, a few pieces behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_WORTH_A_THREAD = 1 << 18
_AHEAD = 4


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


def _one_thread(name: str) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # imports logging, which small files do not need

    return ThreadPoolExecutor(1, name)
