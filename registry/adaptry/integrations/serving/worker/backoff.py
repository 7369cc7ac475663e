"""Backs off from versions that failed to load, or that make the engine's requests fail once they are served.

Failures are recorded by name and digest, so another version under the same name is tried at once. The pause
before a retry doubles with each failure, from half a minute to a quarter of an hour. After a load that the
engine did not answer, the pause is at least as long as the engine's time limit, so such loads never take most
of the time. If the worker waited for the answer for a shorter time, the load is *pending* for the rest: the
version is not tried again, and has not failed. After a load or test during which the engine ended, the pauses
grow much faster, to a day: each attempt may end the engine again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.engines import RequestCounts

ServedVersion = tuple[str, Digest]
"""A name, and the digest of the version to be served under it."""

_FIRST_DELAY = 30.0
_MAX_DELAY = 900.0
_CRASH_GROWTH = 8  # half a minute, four minutes, half an hour, four hours, a day
_MAX_CRASH_DELAY = 86_400.0
_MIN_ERRORS = 3  # fewer errors are no evidence, whatever their rate
_MAX_ERROR_RATE = 0.05


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """The reason, the number of attempts, and the time of the next retry, on the clock of `Backoff` and as a
    time for people. `is_unanswered`: the engine may still load the version; it has not failed before
    `counts_from`, on the same clock.
    """

    reason: str
    attempts: int
    retry_at: float
    retry_date: datetime
    is_unanswered: bool = False
    counts_from: float = -math.inf


def crash_pause(attempts: int) -> float:
    """Seconds to wait after the `attempts`th attempt (from 1) during which the engine ended."""
    return float(min(_FIRST_DELAY * _CRASH_GROWTH ** (attempts - 1), _MAX_CRASH_DELAY))


class Backoff:
    """Records failures, and decides when a version may be retried. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[ServedVersion, FailureRecord] = {}
        self._baselines: dict[ServedVersion, RequestCounts] = {}

    def record_failure(self, key: ServedVersion, reason: str) -> None:
        self._record(key, reason, _FIRST_DELAY)

    def record_unanswered(self, key: ServedVersion, reason: str, waited: float, timeout: float) -> None:
        """Records that the engine has not answered after `waited` seconds. The attempt has failed if the
        version is not loaded `timeout` seconds after it began."""
        self._record(key, reason, max(_FIRST_DELAY, waited, timeout), max(0.0, timeout - waited))

    def record_crash(self, key: ServedVersion, reason: str) -> None:
        """Records that the engine ended, or stopped answering, while it loaded or tested the version."""
        pause = crash_pause(self._attempts(key) + 1)
        self._store(key, reason, pause, pending=0.0)  # only the connection may have ended

    def _record(self, key: ServedVersion, reason: str, pause: float, pending: float | None = None) -> None:
        self._store(key, reason, min(pause * 2 ** self._attempts(key), _MAX_DELAY), pending)

    def _attempts(self, key: ServedVersion) -> int:
        return self._failures[key].attempts if key in self._failures else 0

    def _store(self, key: ServedVersion, reason: str, pause: float, pending: float | None = None) -> None:
        self._failures[key] = FailureRecord(
            reason,
            self._attempts(key) + 1,
            self._clock() + pause,
            datetime.now(UTC) + timedelta(seconds=pause),
            is_unanswered=pending is not None,
            counts_from=self._clock() + (pending or 0.0),
        )

    def is_pending(self, key: ServedVersion) -> bool:
        """Whether the engine still has time to answer the last attempt."""
        return key in self._failures and self._clock() < self._failures[key].counts_from

    def failure_reason(self, key: ServedVersion) -> str | None:
        """The reason of the version's last failure; None if it did not fail, or if its attempt is pending."""
        return self._failures[key].reason if key in self._failures and not self.is_pending(key) else None

    def problem(self, key: ServedVersion) -> str | None:
        """Like `failure_reason`, with the number of failed attempts and the time of the next one."""
        if (failure := self._failures.get(key)) is None:
            return None
        when = failure.retry_date.strftime("%Y-%m-%d %H:%M:%S UTC")
        if self.is_pending(key):
            return f"{failure.reason}; it may still load the version, which is tried again at {when} if not"
        return f"{failure.reason}; failed attempts: {failure.attempts}, next attempt: {when}"

    def is_unanswered(self, key: ServedVersion) -> bool:
        """Whether the engine did not answer the last attempt, so that it may load the version later."""
        return key in self._failures and self._failures[key].is_unanswered

    def is_blocked(self, key: ServedVersion) -> bool:
        """Whether the version still waits for its next retry."""
        return key in self._failures and self._clock() < self._failures[key].retry_at

    def record_success(self, key: ServedVersion) -> None:
        """Forgets the failures of a version that works."""
        self._failures.pop(key, None)

    def retain(self, keys: Collection[ServedVersion]) -> None:
        """Forgets all versions except `keys`, because the others are no longer desired."""
        self._failures = {key: failure for key, failure in self._failures.items() if key in keys}
        self._baselines = {key: counts for key, counts in self._baselines.items() if key in keys}

    def check_error_rate(self, key: ServedVersion, counts: RequestCounts | None) -> str | None:
        """Compares the engine's counters with those at the version's first check. Returns why it failed, or
        None.
        """
        if counts is None:
            return None
        since = self._baselines.setdefault(key, counts)
        requests, errors = counts.requests - since.requests, counts.errors - since.errors
        if requests < 0:  # the engine has restarted
            self._baselines[key] = counts
            return None
        if errors < _MIN_ERRORS or errors <= _MAX_ERROR_RATE * requests:
            return None
        return (
            f"{errors:.0f} of {requests:.0f} requests to the engine have failed since it began to serve the"
            " version"
        )
