"""What could not be served, and when it is tried again; and versions that are served and make the engine fail.

A failure is kept by name and digest: another version under the name is another matter. Waiting doubles, from half a minute to
a quarter of an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.integrations.serving.engines import Tally

Place = tuple[str, Digest]
"""A name, and the version that was to be served under it."""

_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 900.0
_FEWEST = 3  # errors, below which a share of them says nothing
_TOLERATED = 0.05


@dataclass(frozen=True, slots=True)
class Failure:
    """Why, how often, and when (on the clock of `Failures`) it is worth another try."""

    reason: str
    times: int
    again_at: float


class Failures:
    """Failures so far; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[Place, Failure] = {}
        self._since: dict[Place, Tally] = {}

    def note(self, place: Place, reason: str) -> None:
        times = self._found[place].times + 1 if place in self._found else 1
        pause = min(_FIRST_PAUSE * 2 ** (times - 1), _LONGEST_PAUSE)
        self._found[place] = Failure(reason, times, self._clock() + pause)

    def reason(self, place: Place) -> str | None:
        """None where it did not fail."""
        return self._found[place].reason if place in self._found else None

    def is_to_wait(self, place: Place) -> bool:
        """Whether it failed lately."""
        return place in self._found and self._clock() < self._found[place].again_at

    def forget(self, place: Place) -> None:
        """It works."""
        self._found.pop(place, None)

    def keep_only(self, places: Collection[Place]) -> None:
        """Nobody asks for the others any more."""
        self._found = {place: failure for place, failure in self._found.items() if place in places}
        self._since = {place: tally for place, tally in self._since.items() if place in places}

    def count(self, place: Place, tally: Tally | None) -> str | None:
        """Looks at the engine's errors since the version was first counted; why it has failed, if it has."""
        if tally is None:
            return None
        since = self._since.setdefault(place, tally)
        requests, errors = tally.requests - since.requests, tally.errors - since.errors
        if requests < 0:  # the engine was started anew
            self._since[place] = tally
            return None
        if errors < _FEWEST or errors <= _TOLERATED * requests:
            return None
        return f"{errors:.0f} of {requests:.0f} requests to the engine ended in an error since it serves the version"
