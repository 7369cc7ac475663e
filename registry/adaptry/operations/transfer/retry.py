"""The retry policy for lost connections and servers: a value, so that tests need not wait."""

from __future__ import annotations

import time

from adaptry.core.errors import Busy
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Up to `tries` attempts in a row without progress; the pause before each doubles (seconds).

    `Busy` does not count as a failure: the request is repeated for up to `longest_queue` seconds in total.
    """

    tries: int = 8
    first_wait: float = 0.2
    longest_wait: float = 10.0
    longest_queue: float = 1800.0

    def is_exhausted(self, failures: int) -> bool:
        return failures >= self.tries

    def wait(self, failures: int) -> None:
        """Waits before the next try, after `failures` tries without progress."""
        time.sleep(min(self.first_wait * 2 ** max(failures - 1, 0), self.longest_wait))

    def wait_in_queue(self, busy: Busy, waited: float) -> float:
        """Waits for the time that a busy registry requests, with jitter, so that clients do not return
        simultaneously.

        `waited` is the caller's previous waiting time; returns the new total. Raises `busy` if that would
        exceed `longest_queue`.
        """
        import random  # only a busy server needs it

        seconds = min(busy.retry_after, self.longest_wait) * random.uniform(0.5, 1.5)
        if waited + seconds > self.longest_queue:
            raise busy
        time.sleep(seconds)
        return waited + seconds


DEFAULT_RETRY = RetryPolicy()
"""About half a minute without a single byte: a server that restarts is back by then."""
