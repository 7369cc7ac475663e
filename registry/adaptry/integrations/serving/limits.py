"""Limits the requests to the registry that an engine's clients cause: a negative cache and a rate limiter.

Clients may request any name from an engine, and each unknown name would cause a request to the registry.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import field

from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.lazy_dataclass import dataclass


@dataclass(slots=True)
class NegativeCache:
    """Caches the reasons why names were refused, for `seconds` seconds and for at most `maximum` names.
    Callers pass the time in seconds.
    """

    seconds: float
    maximum: int = 4096
    _refused: OrderedDict[str, tuple[float, AdaptryError]] = field(default_factory=OrderedDict)

    def add(self, name: str, error: AdaptryError, now: float) -> None:
        self._refused[name] = (now + self.seconds, error)
        self._refused.move_to_end(name)
        while len(self._refused) > self.maximum:
            self._refused.popitem(last=False)

    def check(self, name: str, now: float) -> None:
        """Raises the cached error of a name, unless it has expired."""
        until, error = self._refused.get(name, (0.0, None))
        if error is not None and now < until:
            raise type(error)(error.message)
        self._refused.pop(name, None)

    def clear(self) -> None:
        self._refused.clear()

    def names(self, now: float) -> list[str]:
        """The names that are refused now."""
        return [name for name, (until, _) in self._refused.items() if now < until]


@dataclass(slots=True)
class RateLimiter:
    """A token bucket: `per_second` requests, and bursts of as many. Callers pass the time in seconds."""

    per_second: float
    _tokens: float | None = None
    _at: float = 0.0

    def acquire(self, now: float) -> None:
        """Takes a token. Raises `Unavailable` if none is left."""
        tokens = (
            self.per_second if self._tokens is None else self._tokens + (now - self._at) * self.per_second
        )
        self._tokens, self._at = min(tokens, self.per_second), now
        if self._tokens < 1:
            raise Unavailable(
                "too many requests for adapters that are not loaded yet; try again in a second, or request"
                " adapters that are already served"
            )
        self._tokens -= 1
