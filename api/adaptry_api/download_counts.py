"""Counts downloads in memory, and stores them once a minute.

Storing counts is a commit, and after each commit the server drops its cached responses (`answer_cache`). If
downloads were stored at once, or every ten seconds, clients that download many adapters one after the other
would hardly find a cached response. Counts that are not stored yet are lost if the process is killed.
"""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice

from adaptry.core.refs import Ref
from adaptry.storage.catalog import download_counts
from adaptry.storage.catalog.database import Catalog

MAX_BATCH = 200
"""Maximum number of versions whose downloads one transaction stores: other writers wait for it."""


class DownloadCounts:
    """The downloads of one server process. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[Ref] = Counter()

    def note(self, version: Ref) -> None:
        """Counts a download. `version` names a version by its number; the caller may read it."""
        with self._lock:
            self._waiting[version] += 1

    def store(self, catalog: Catalog) -> None:
        """Stores the downloads since the last call, of `MAX_BATCH` versions in each transaction. If one
        fails, its downloads and those that follow are kept.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, Counter()
        try:
            while some := dict(islice(waiting.items(), MAX_BATCH)):
                with catalog.write_nondurable() as tx:
                    download_counts.add(tx, some)
                for version in some:
                    del waiting[version]
        except BaseException:
            with self._lock:
                self._waiting += waiting
            raise
