"""One process's leases on cache entries. A leased entry is not evicted."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from adaptry.core.digest import Digest
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.layout import CacheLayout


class CacheLeases:
    """One lease per digest, shared by all threads; all leases end with the process."""

    def __init__(self, layout: CacheLayout) -> None:
        self._layout = layout
        self._locks: dict[Digest, FileLock] = {}
        self._holders: Counter[Digest] = Counter()
        self._kept: set[Digest] = set()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def hold(self, digest: Digest) -> Iterator[Callable[[], None]]:
        """Leases the digest for the block, or until `release` if the block calls the returned function."""
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
        """Ends the lease on the digest. Idempotent."""
        with self._guard:
            self._kept.discard(digest)
            self._release_if_unused(digest)

    def release_all(self) -> tuple[Digest, ...]:
        """Ends all leases; returns their digests."""
        ended = tuple(self._kept)
        for digest in ended:
            self.release(digest)
        return ended

    def _release_if_unused(self, digest: Digest) -> None:
        """Ends the lease unless a thread still holds it."""
        if digest not in self._kept and not self._holders[digest]:
            del self._holders[digest]
            if lock := self._locks.pop(digest, None):
                lock.release()
