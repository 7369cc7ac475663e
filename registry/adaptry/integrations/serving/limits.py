"""What an engine is asked for over and over: refusals are remembered for a while, and questions come at a pace.

Clients ask engines for any name they like, and each unknown one would be a call to the registry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from adaptry.core.errors import AdaptryError, Unavailable


@dataclass(slots=True)
class NegativeCache:
    """Why names were refused, each for `seconds`; at most `most` of them. The caller says what time it is (seconds)."""

    seconds: float
    most: int = 4096
    _refused: OrderedDict[str, tuple[float, AdaptryError]] = field(default_factory=OrderedDict)

    def add(self, name: str, why: AdaptryError, now: float) -> None:
        self._refused[name] = (now + self.seconds, why)
        self._refused.move_to_end(name)
        while len(self._refused) > self.most:
            self._refused.popitem(last=False)

    def check(self, name: str, now: float) -> None:
        """Raises what a name was refused with, if that was lately."""
        until, why = self._refused.get(name, (0.0, None))
        if why is not None and now < until:
            raise type(why)(why.message)
        self._refused.pop(name, None)

    def clear(self) -> None:
        self._refused.clear()

    def names(self, now: float) -> list[str]:
        """What is refused at present."""
        return [name for name, (until, _) in self._refused.items() if now < until]


@dataclass(slots=True)
class RateLimiter:
    """So many questions a second, and as many at once; the caller says what time it is."""

    per_second: float
    _left: float | None = None
    _at: float = 0.0

    def acquire(self, now: float) -> None:
        """Raises `Unavailable` for a question too many."""
        left = self.per_second if self._left is None else self._left + (now - self._at) * self.per_second
        self._left, self._at = min(left, self.per_second), now
        if self._left < 1:
            raise Unavailable(
                "too many adapters that are not loaded are asked for at once; try again in a second, or ask for the names "
                "that are served"
            )
        self._left -= 1
