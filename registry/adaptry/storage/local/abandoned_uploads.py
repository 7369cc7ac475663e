"""Abandoned upload sessions, which are dropped to make room for new ones.

A client holds no lock between requests, so an idle session may still be in use. A session counts as abandoned
if its staging is unlocked and it has been idle for `IDLE`: no request, and no bytes written by presigned URL.
If its client continues after all, it gets `NotFound` and opens the upload again.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from adaptry.core.errors import Conflict
from adaptry.core.quotas import QuotaSubject
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import files
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.files import UploadSessionRecord

IDLE = timedelta(minutes=2)
"""Longer than an active client pauses: between two attempts, `transfer` waits at most ten seconds."""
IDLE_DIRECT = timedelta(minutes=15)
"""The same if parts go directly to a bucket, which shows a part only when it is complete: 16 MiB at 20
kB/s.
"""


def drop_abandoned(
    catalog: Catalog, blobs: BlobStore, subject: QuotaSubject, now: datetime, direct_from: int | None
) -> bool:
    """Drops the abandoned session of a namespace or principal that was idle longest. Returns whether it
    found one.

    Sessions for files of `direct_from` bytes or more may receive bytes by presigned URL (None: none). Safe
    while other processes run: the staging is locked, and its row is checked again, before either is deleted.
    """
    with catalog.read() as tx:
        idle = files.sessions_idle_since(tx, subject, now - IDLE)
    for session in idle:
        is_direct = direct_from is not None and session.size >= direct_from
        with suppress(Conflict):  # another process holds it
            if _drop(catalog, blobs, session, now - (IDLE_DIRECT if is_direct else IDLE)):
                return True
    return False


def _drop(catalog: Catalog, blobs: BlobStore, session: UploadSessionRecord, before: datetime) -> bool:
    """Drops the session unless anything happened to it after `before`. Returns whether it is gone. Raises
    `Conflict`.
    """
    with blobs.staging(session.id) as staged:
        written = blobs.last_write(session.id) if staged.offset else None
        if max(session.touched_at, written or session.touched_at) >= before:
            return False
        with catalog.write() as tx:
            found = files.find_session(tx, session.id)
            if found is None or found.is_finished or found.touched_at != session.touched_at:
                return False
            files.close_session(tx, session.id)
        staged.discard()
    return True
