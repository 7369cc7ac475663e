"""What could not be served, and when it is tried again; and versions that are served and make the engine fail.

A failure is kept by name and digest: another version under the name is another matter. Waiting doubles, from half a minute to
a quarter of an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.integrations.serving.engines import RequestCounts

ServedVersion = tuple[str, Digest]
"""A name, and the version that was to be served under it."""

_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 900.0
_MIN_ERRORS = 3  # errors, below which a share of them says nothing
_MAX_ERROR_RATE = 0.05


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """Why, how often, and when (on the clock of `Backoff`) it is worth another try."""

    reason: str
    attempts: int
    retry_at: float


class Backoff:
    """Failures so far; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[ServedVersion, FailureRecord] = {}
        self._baselines: dict[ServedVersion, RequestCounts] = {}

    def record_failure(self, key: ServedVersion, reason: str) -> None:
        times = self._failures[key].attempts + 1 if key in self._failures else 1
        pause = min(_FIRST_PAUSE * 2 ** (times - 1), _LONGEST_PAUSE)
        self._failures[key] = FailureRecord(reason, times, self._clock() + pause)

    def failure_reason(self, key: ServedVersion) -> str | None:
        """None where it did not fail."""
        return self._failures[key].reason if key in self._failures else None

    def is_blocked(self, key: ServedVersion) -> bool:
        """Whether it failed lately."""
        return key in self._failures and self._clock() < self._failures[key].retry_at

    def record_success(self, key: ServedVersion) -> None:
        """It works."""
        self._failures.pop(key, None)

    def retain(self, places: Collection[ServedVersion]) -> None:
        """Nobody asks for the others any more."""
        self._failures = {key: failure for key, failure in self._failures.items() if key in places}
        self._baselines = {key: tally for key, tally in self._baselines.items() if key in places}

    def check_error_rate(self, key: ServedVersion, tally: RequestCounts | None) -> str | None:
        """Looks at the engine's errors since the version was first counted; why it has failed, if it has."""
        if tally is None:
            return None
        since = self._baselines.setdefault(key, tally)
        requests, errors = tally.requests - since.requests, tally.errors - since.errors
        if requests < 0:  # the engine was started anew
            self._baselines[key] = tally
            return None
        if errors < _MIN_ERRORS or errors <= _MAX_ERROR_RATE * requests:
            return None
        return f"{errors:.0f} of {requests:.0f} requests to the engine ended in an error since it serves the version"
