"""Wakes the engine's queue threads, which otherwise look for work at fixed intervals.

DBOS polls its queues: after each enqueued step, and after each step that ended, the next one would wait for
the rest of an interval. Its threads wait on events, which are set when it ends; here, those of a process are
given a `wait` that also returns when there may be work. Other runners notice work by polling. If a version of
DBOS has no such events, so does this one.
"""

from __future__ import annotations

import threading

_PAUSE = 0.02
"""Seconds between a wake-up and the look for work: several come at once, and DBOS counts a step that has
ended as running for a few milliseconds more.
"""


class QueueWakeup:
    """Wakes the threads that wait on some events, from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0
        self._seen = threading.local()

    def wake(self) -> None:
        """Lets every thread look for work soon, also one that is looking now."""
        with self._changed:
            self._calls += 1
            self._changed.notify_all()

    def extend(self, event: threading.Event) -> None:
        """Wakes threads that wait on this event from now on: its `wait` returns early, and its `set` ends
        that.
        """
        set_event, is_set = event.set, event.is_set

        def set_and_wake() -> None:
            set_event()
            self.wake()

        def wait(timeout: float | None = None) -> bool:
            seen = getattr(self._seen, "calls", 0)
            with self._changed:
                self._changed.wait_for(lambda: is_set() or self._calls != seen, timeout)
                if not is_set() and self._calls != seen:
                    self._changed.wait_for(is_set, _PAUSE)
                self._seen.calls = self._calls
            return is_set()

        setattr(event, "set", set_and_wake)  # noqa: B010  (a method, to the type checker)
        setattr(event, "wait", wait)  # noqa: B010
