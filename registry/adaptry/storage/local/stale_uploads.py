"""Removes stale uploads: sessions idle for a day, and staged bytes without a session.

A server removes them periodically, and `gc` whenever it runs. The embedded registry removes them before the
first upload of a process, so commands that upload nothing do not pay for it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from threading import Lock

from adaptry.core.errors import Conflict, StorageFull
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import files
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.files import UploadSessionRecord

IDLE = timedelta(hours=24)


class UploadCleanup:
    """Drops stale uploads once; shared by the registries of one process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_done = False

    def run_once(self, catalog: Catalog, blobs: BlobStore, now: datetime) -> None:
        """Drops stale uploads, the first time that it is called. Raises `Unavailable`. A full disk is ignored
        here, because the upload itself reports it.
        """
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
        with suppress(StorageFull):
            purge(catalog, blobs, now)


def purge(catalog: Catalog, blobs: BlobStore, now: datetime) -> int:
    """Drops sessions idle for a day and stagings without a session; returns the number of stagings.

    Stagings that any process is writing to are kept.
    """
    # List stagings before sessions: a later staging may belong to a session that we do not see.
    found = tuple(blobs.stagings())
    with catalog.read_prepared() as tx:
        idle = [id for id in files.idle_sessions(tx, now - IDLE) if not blobs.is_held(id)]
        known = {key: files.find_session(tx, key) for key in found}
    # Delete bytes before rows: on a full disk, that frees the space that changing rows needs.
    dead = [key for key, session in known.items() if key in idle or not _is_alive(session)]
    dropped = 0
    for key in dead:
        try:
            with blobs.staging(key) as staged:
                staged.discard()
                dropped += 1
        except Conflict:
            continue
    if idle:
        with catalog.write() as tx:
            files.close_idle(tx, idle, now - IDLE)
    blobs.tidy()
    return dropped


def _is_alive(session: UploadSessionRecord | None) -> bool:
    return session is not None and not session.is_finished
