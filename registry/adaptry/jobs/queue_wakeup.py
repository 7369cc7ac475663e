"""Wakes the engine's queue threads, which otherwise check for work at fixed intervals.

DBOS polls its queues, so each step would wait for the rest of an interval. Its queue threads wait on an event
that is set at shutdown; here, the event's `wait` is replaced by one that also returns when `wake` is called.
Other runners still notice work by polling, and so does this one if a version of DBOS has no such event.
"""

from __future__ import annotations

import threading

_THREADS = "queue-worker-"
"""The beginning of the names of DBOS's queue threads. Other threads wait on the same event."""
_DELAY = 0.03
_RECHECK_DELAY = 0.25
"""Seconds between a wake-up and the check for work, and between that and another check. Often several
wake-ups come at once, and DBOS counts a step that it has taken as running, or one that has ended as ended,
only after some milliseconds, or more if its database is slow.
"""


class QueueWakeup:
    """Wakes the queue threads that wait on some events, from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0
        self._seen = threading.local()

    def wake(self) -> None:
        """Makes every queue thread check for work soon, even a thread that is checking now."""
        with self._changed:
            self._calls += 1
            self._changed.notify_all()

    def extend(self, event: threading.Event) -> None:
        """From now on, `wake` also ends waits on this event."""
        set_event, wait_for_event, is_set = event.set, event.wait, event.is_set

        def set_and_wake() -> None:
            set_event()
            self.wake()

        def wait(timeout: float | None = None) -> bool:
            if not threading.current_thread().name.startswith(_THREADS):
                return wait_for_event(timeout)
            seen, was_woken = getattr(self._seen, "state", (0, False))
            if was_woken:
                timeout = _RECHECK_DELAY if timeout is None else min(timeout, _RECHECK_DELAY)
            with self._changed:
                is_woken = self._changed.wait_for(lambda: is_set() or self._calls != seen, timeout)
                if is_woken:
                    self._changed.wait_for(is_set, _DELAY)
                self._seen.state = (self._calls, is_woken)
            return is_set()

        setattr(event, "set", set_and_wake)  # noqa: B010  (a method, to the type checker)
        setattr(event, "wait", wait)  # noqa: B010
