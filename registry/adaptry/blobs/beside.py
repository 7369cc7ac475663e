"""Hashing beside writing: SHA-256 lets go of the interpreter lock, so a second core can do it meanwhile."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_WORTH_A_THREAD = 1 << 18


class Beside:
    """Feeds a hasher from a thread of its own, one piece behind; at the end of the block it has seen all.

    Without a hasher it does nothing. A piece must not change until `settle` or the next `update`.
    """

    def __init__(self, hasher: hashlib._Hash | None) -> None:
        self._hasher = hasher
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()
        if self._thread:
            self._thread.shutdown()

    def update(self, piece: memoryview) -> None:
        """Begins to hash a piece, once the one before is done."""
        self.settle()
        if self._hasher is None:
            return
        if len(piece) < _WORTH_A_THREAD:
            self._hasher.update(piece)
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "hashing")
        self._last = self._thread.submit(self._hasher.update, piece)

    def settle(self) -> None:
        """Waits until everything given so far is hashed."""
        if self._last:
            self._last.result()
            self._last = None
