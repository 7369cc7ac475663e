"""The retry policy for lost connections and unavailable servers. It is a value, so that tests need not
wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from adaptry.core.errors import Busy, ReadOnly, StorageFull, Unavailable
from adaptry.core.lazy_dataclass import dataclass

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Up to `tries` attempts in a row without progress; the pause before each doubles (seconds).

    No attempt begins later than `longest_failing` seconds after the first one failed, because an attempt
    itself can take long: a push waits half a minute for a locked catalog. `Busy` does not count as a failure:
    the request is repeated for up to `longest_queue` seconds in total.
    """

    tries: int = 8
    first_wait: float = 0.2
    longest_wait: float = 10.0
    longest_failing: float = 30.0
    longest_queue: float = 1800.0

    def wait_in_queue(self, busy: Busy, waited: float) -> float:
        """Waits for the time that a busy registry requests, with jitter, so that clients do not return
        simultaneously.

        `waited` is the caller's previous waiting time; returns the new total. Raises `busy` if that would
        exceed `longest_queue`.
        """
        import random  # imported here, since only a busy server makes it necessary

        seconds = min(busy.retry_after, self.longest_wait) * random.uniform(0.5, 1.5)
        if waited + seconds > self.longest_queue:
            raise busy
        time.sleep(seconds)
        return waited + seconds


@dataclass(slots=True)
class Failures:
    """Counts the consecutive failures of one transfer, which `policy` limits."""

    policy: RetryPolicy
    count: int = 0
    _first: float = 0.0  # when the first one occurred, by the monotonic clock

    def add(self, error: Exception, may_have_progressed: bool = False) -> None:
        """Counts a failure. Raises `error` if no further attempt is allowed.

        `may_have_progressed`: whether bytes were sent, which only the next attempt can confirm.
        """
        now = time.monotonic()
        if not self.count or may_have_progressed:
            self._first = now
        self.count += 1
        if self.count >= self.policy.tries or now - self._first > self.policy.longest_failing:
            raise error

    def reset(self) -> None:
        """Resets the count after progress: the next failure is the first one again."""
        self.count = 0

    def wait(self) -> None:
        """Waits before the next attempt."""
        pause = self.policy.first_wait * 2 ** max(self.count - 1, 0)
        time.sleep(min(pause, self.policy.longest_wait))


def with_retries(action: Callable[[], Answer], policy: RetryPolicy) -> Answer:
    """The result of an action that may be repeated. Raises its errors: `Unavailable` only after as many
    tries, and `Busy` only after as long a wait, as the policy allows.
    """
    failures, queued = Failures(policy), 0.0
    while True:
        try:
            return action()
        except (StorageFull, ReadOnly):
            raise
        except Busy as busy:
            queued = policy.wait_in_queue(busy, queued)
        except Unavailable as error:
            failures.add(error)
            failures.wait()


DEFAULT_RETRY = RetryPolicy()
"""About half a minute without a single byte: a server that restarts is back by then."""
