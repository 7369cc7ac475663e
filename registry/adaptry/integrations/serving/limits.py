"""What an engine is asked for over and over: refusals are remembered for a while, and questions come at a pace.

Clients ask engines for any name they like, and each unknown one would be a call to the registry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from adaptry.core.errors import AdaptryError, Unavailable


@dataclass(slots=True)
class Refusals:
    """Why names were refused, each for `seconds`; at most `most` of them. The caller says what time it is (seconds)."""

    seconds: float
    most: int = 4096
    _known: OrderedDict[str, tuple[float, AdaptryError]] = field(default_factory=OrderedDict)

    def add(self, name: str, why: AdaptryError, now: float) -> None:
        self._known[name] = (now + self.seconds, why)
        self._known.move_to_end(name)
        while len(self._known) > self.most:
            self._known.popitem(last=False)

    def check(self, name: str, now: float) -> None:
        """Raises what a name was refused with, if that was lately."""
        until, why = self._known.get(name, (0.0, None))
        if why is not None and now < until:
            raise type(why)(why.message)
        self._known.pop(name, None)

    def clear(self) -> None:
        self._known.clear()

    def names(self, now: float) -> list[str]:
        """What is refused at present."""
        return [name for name, (until, _) in self._known.items() if now < until]


@dataclass(slots=True)
class Pace:
    """So many questions a second, and as many at once; the caller says what time it is."""

    per_second: float
    _left: float | None = None
    _at: float = 0.0

    def take(self, now: float) -> None:
        """Raises `Unavailable` for a question too many."""
        left = self.per_second if self._left is None else self._left + (now - self._at) * self.per_second
        self._left, self._at = min(left, self.per_second), now
        if self._left < 1:
            raise Unavailable(
                "too many adapters that are not loaded are asked for at once; try again in a second, or ask for the names "
                "that are served"
            )
        self._left -= 1
