"""Leases of one process on what is in a cache: nothing that is leased is evicted."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from adaptry.core.digest import Digest
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.layout import Shelf


class Leases:
    """One lease for each digest, however many threads ask for it; all end with the process."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._locks: dict[Digest, FileLock] = {}
        self._asking: Counter[Digest] = Counter()
        self._lasting: set[Digest] = set()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def held(self, digest: Digest) -> Iterator[Callable[[], None]]:
        """Leased while the block runs; beyond it where what is given was called, until `end`."""
        with self._guard:
            if digest not in self._locks:
                self._locks[digest] = FileLock.shared(self._shelf.lease(digest))
            self._asking[digest] += 1
        try:
            yield lambda: self._lasting.add(digest)
        finally:
            with self._guard:
                self._asking[digest] -= 1
                self._let_go(digest)

    def end(self, digest: Digest) -> None:
        """Again is no error."""
        with self._guard:
            self._lasting.discard(digest)
            self._let_go(digest)

    def end_all(self) -> None:
        for digest in tuple(self._lasting):
            self.end(digest)

    def _let_go(self, digest: Digest) -> None:
        """Ends the lease unless someone needs it yet."""
        if digest not in self._lasting and not self._asking[digest]:
            del self._asking[digest]
            if lock := self._locks.pop(digest, None):
                lock.release()
