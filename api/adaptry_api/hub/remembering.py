"""What was computed of bytes once, kept for the next who asks: the same bytes give the same for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from adaptry.digest import Digest
from adaptry.manifest import Manifest
from adaptry_api.hub.card import Card

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by digest, at most `most` of them; all are dropped when there are more. Safe to use from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[Digest, Value] = {}

    def of(self, digest: Digest, compute: Callable[[], Value]) -> Value:
        """`compute` is called only where the value is not known, and two at once may both be."""
        known = self._known.get(digest)
        if known is None:
            known = compute()
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[digest] = known
        return known


class Memory:
    """Of small files: what git calls them, and what the model cards among them say; of commits: their trees.

    Whether the caller may see them is asked before.
    """

    def __init__(self) -> None:
        self.blob_ids = Remembered[str](65_536)
        self.cards = Remembered[Card](1024)
        self.trees = Remembered[Manifest](512)
