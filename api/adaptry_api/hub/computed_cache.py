"""In-memory caches of results computed from stored bytes, by digest: equal bytes give equal results."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from adaptry.core.digest import Digest
from adaptry.core.manifest import FileEntry
from adaptry_api.hub.announced_files import Announcements
from adaptry_api.hub.card import Card

Value = TypeVar("Value")


class ComputedCache(Generic[Value]):
    """Values by digest, of at most `maximum` total weight; above it, all are dropped. Safe for use by any
    thread.
    """

    def __init__(self, maximum: int, weigh: Callable[[Value], int] = lambda value: 1) -> None:
        self._most = maximum
        self._weigh = weigh
        self._lock = Lock()
        self._weight = 0
        self._known: dict[Digest, Value] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get_or_compute(self, digest: Digest, compute: Callable[[], Value]) -> Value:
        """Calls `compute` only if the value is not cached; two threads at once may both call it."""
        known = self._known.get(digest)
        return known if known is not None else self._keep(digest, compute())

    def _keep(self, digest: Digest, value: Value) -> Value:
        weight = self._weigh(value)
        with self._lock:
            if digest in self._known:
                return self._known[digest]
            if self._weight + weight > self._most:
                self._known.clear()
                self._weight = 0
            if weight <= self._most:
                self._known[digest] = value
                self._weight += weight
        return value


class HubCaches:
    """Caches the git ids of small files, the contents of model cards, the files of revisions, and the
    announced files of current uploads.

    A digest alone gives access to nothing: a caller looks values up only by digests that the registry
    returned for this request.
    """

    def __init__(self) -> None:
        self.blob_ids = ComputedCache[str](65_536)
        self.cards = ComputedCache[Card](1024)
        self.announcements = Announcements()
        self.trees = ComputedCache[tuple[FileEntry, ...]](65_536, lambda files: len(files) + 1)
