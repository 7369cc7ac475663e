"""Notifications of commits: wakes waiters for events when this or another process has committed some.

A notification only means that there may be new events; the waiter then reads them. One thread listens for all
waiters of a catalog, while there are any. It survives restarts of the database, and notifies once after each,
since it may have missed events.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from adaptry.storage.catalog.dialect import CommitListener

LOG = logging.getLogger("adaptry.storage.catalog")

_IDLE_SECONDS = 60.0  # seconds that the thread keeps listening without waiters, since waiters come and go
_PAUSES = 0.1, 5.0  # first and maximum seconds before listening is tried again after an error


class CommitNotifier:
    """Wait within `subscribed`. `notifications` is a count, so that none between a read and a wait is
    lost.
    """

    def __init__(self, listen: CommitListener) -> None:
        self.notifications = 0
        self._listen_for_commits = listen
        self._changed = threading.Condition()
        self._callbacks: set[Callable[[], None]] = set()
        self._subscribed_count = 0
        self._left_at = 0.0
        self._thread: threading.Thread | None = None
        self._waking: socket.socket | None = None

    def notify(self) -> None:
        """Wakes all waiters after a commit."""
        with self._changed:
            self.notifications += 1
            callbacks = tuple(self._callbacks)
            self._changed.notify_all()
        for callback in callbacks:
            callback()

    @contextmanager
    def subscribed(self, callback: Callable[[], None] | None = None) -> Iterator[None]:
        """Listens for commits during the block; calls `callback` at each, from any thread."""
        with self._changed:
            self._subscribed_count += 1
            if callback:
                self._callbacks.add(callback)
            if self._thread is None:
                woken, self._waking = socket.socketpair()
                self._thread = threading.Thread(
                    target=self._listen, args=(woken,), name="adaptry-commit-notifier", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._subscribed_count -= 1
                self._left_at = time.monotonic()
                if callback:
                    self._callbacks.discard(callback)

    def wait(self, seen: int, seconds: float) -> bool:
        """Whether there was a notification since the count was `seen`; waits up to `seconds` for one."""
        with self._changed:
            return self._changed.wait_for(lambda: self.notifications != seen, max(0.0, seconds))

    def close(self) -> None:
        """Stops listening, and waits until the connection to the database is given back."""
        with self._changed:  # waits for a thread that is being started
            thread = self._thread
        self.stop()
        if thread:
            thread.join(timeout=5)

    def stop(self) -> None:
        """Stops listening soon. Never waits: a garbage collector may call it, whatever locks are held."""
        waking, self._thread, self._waking = self._waking, None, None
        if waking:
            waking.close()  # makes the other end readable

    def _listen(self, woken: socket.socket) -> None:
        pause = _PAUSES[0]
        with closing(woken):
            while self._is_wanted():
                try:
                    for has_news in self._listen_for_commits(woken):
                        pause = _PAUSES[0]
                        if has_news:
                            self.notify()
                        if not self._is_wanted():
                            return
                except Exception as error:  # noqa: BLE001  waiters get the error themselves when they read
                    LOG.warning("cannot listen for events: %s; trying again", error)
                    self.notify()
                    woken.settimeout(pause)
                    try:
                        woken.recv(1)
                    except TimeoutError:
                        pause = min(2 * pause, _PAUSES[1])

    def _is_wanted(self) -> bool:
        """Whether this thread must continue; if not, another may replace it."""
        with self._changed:
            if self._thread is not threading.current_thread():
                return False
            if self._subscribed_count or time.monotonic() - self._left_at < _IDLE_SECONDS:
                return True
            self._thread = None
            if self._waking:
                self._waking.close()
                self._waking = None
            return False
