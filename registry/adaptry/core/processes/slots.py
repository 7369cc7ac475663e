"""Limits on the children of one kind in this process: how many run at once, and how many callers may wait.

A waiting caller occupies a thread of the server. So only a few may wait; others get an error that asks them
to retry. One client with many expensive requests therefore cannot occupy all threads, and requests that need
no child are not delayed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from adaptry.core.errors import Unavailable


class ProcessSlots:
    """At most `running` callers hold a slot, and at most `waiting` callers wait for one, each for `timeout`
    seconds.
    """

    def __init__(self, running: int, waiting: int, timeout: float = 30.0) -> None:
        self._running = threading.BoundedSemaphore(running)
        self._present = threading.BoundedSemaphore(running + waiting)
        self._timeout = timeout

    @contextmanager
    def acquire(self, what: str) -> Iterator[None]:
        """Holds a slot during the block. Raises `Unavailable` if too many callers wait, or the wait is too
        long; the message names `what` they read.
        """
        if not self._present.acquire(blocking=False):
            raise Unavailable(f"too many requests are waiting to read {what}; try again")
        try:
            if not self._running.acquire(timeout=self._timeout):
                raise Unavailable(f"waited too long for other requests to read {what}; try again")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._present.release()
