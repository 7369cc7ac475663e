"""Hashing on a second thread. Hashing releases the interpreter lock, so it runs on a second core.

`BackgroundHasher` calls a function with each piece of a stream, in order, a few pieces behind.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from queue import SimpleQueue
    from threading import Thread

_WORTH_A_THREAD = 1 << 18
_QUEUE_LENGTH = 4


class BackgroundHasher:
    """Calls `work` with every piece, on another thread. When the block ends, all pieces have been processed.

    If `work` is None, it does nothing. A piece must not change until `drain`, which raises what `work`
    raised.
    """

    def __init__(self, work: Callable[[memoryview], object] | None) -> None:
        self._work = work
        self._thread: _WorkThread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._thread.end()
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
        self._thread = self._thread or _WorkThread(self._work)
        if self._thread.waiting == _QUEUE_LENGTH:
            self._thread.wait_for_one()
        self._thread.put(piece)

    def drain(self) -> None:
        """Waits until all queued pieces are processed."""
        while self._thread and self._thread.waiting:
            self._thread.wait_for_one()


class _WorkThread:
    """A thread that calls `work` with each piece. An executor would hold the interpreter lock, for which the
    threads of a server compete, several times as long for each piece.
    """

    def __init__(self, work: Callable[[memoryview], object]) -> None:
        from queue import SimpleQueue  # here and below, since small files do not need a thread
        from threading import Thread

        self.waiting = 0
        """The number of pieces that may not be processed yet."""
        self._pieces: SimpleQueue[memoryview | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread: Thread = Thread(target=self._run, args=(work,), name="beside", daemon=True)
        self._thread.start()

    def put(self, piece: memoryview) -> None:
        self.waiting += 1
        self._pieces.put(piece)

    def wait_for_one(self) -> None:
        """Waits for the oldest piece. Raises what `work` raised."""
        self.waiting -= 1
        error = self._results.get()
        if error is not None:
            raise error

    def end(self) -> None:
        """Returns when all pieces are processed."""
        self._pieces.put(None)
        self._thread.join()

    def _run(self, work: Callable[[memoryview], object]) -> None:
        while (piece := self._pieces.get()) is not None:
            error: BaseException | None = None
            try:
                work(piece)
            except BaseException as raised:  # noqa: BLE001  raised again by `wait_for_one`
                error = raised
            del piece  # its owner may use the memory again
            self._results.put(error)
