"""Leases of one process on what is in a cache: nothing that is leased is evicted."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from adaptry.core.digest import Digest
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.layout import CacheLayout


class CacheLeases:
    """One lease for each digest, however many threads ask for it; all end with the process."""

    def __init__(self, layout: CacheLayout) -> None:
        self._layout = layout
        self._locks: dict[Digest, FileLock] = {}
        self._holders: Counter[Digest] = Counter()
        self._kept: set[Digest] = set()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def hold(self, digest: Digest) -> Iterator[Callable[[], None]]:
        """Leased while the block runs; beyond it where what is given was called, until `end`."""
        with self._guard:
            if digest not in self._locks:
                self._locks[digest] = FileLock.acquire_shared(self._layout.lease_file(digest))
            self._holders[digest] += 1
        try:
            yield lambda: self._kept.add(digest)
        finally:
            with self._guard:
                self._holders[digest] -= 1
                self._release_if_unused(digest)

    def release(self, digest: Digest) -> None:
        """Again is no error."""
        with self._guard:
            self._kept.discard(digest)
            self._release_if_unused(digest)

    def release_all(self) -> None:
        for digest in tuple(self._kept):
            self.release(digest)

    def _release_if_unused(self, digest: Digest) -> None:
        """Ends the lease unless someone needs it yet."""
        if digest not in self._kept and not self._holders[digest]:
            del self._holders[digest]
            if lock := self._locks.pop(digest, None):
                lock.release()
