"""Abandoned upload sessions, and how they make room for new ones.

A client that pauses between two requests holds nothing, so an idle session may still be alive. A session
counts as abandoned if nobody holds its staging and nothing has happened to it for `IDLE`: no request, and no
bytes that arrived past the server. Its client, if there is one after all, gets `NotFound` and opens the
upload again.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from adaptry.core.errors import Conflict
from adaptry.registry.files import Owner
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import files
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.files import UploadSessionRecord

IDLE = timedelta(minutes=2)
"""Longer than a client pauses that is alive: between two tries `transfer` waits ten seconds at most."""
IDLE_DIRECT = timedelta(minutes=15)
"""The same where parts go straight to a bucket, which sees each only when it is whole: 16 MiB at 20 kB/s."""


def drop_abandoned(
    catalog: Catalog, blobs: BlobStore, owner: Owner, wanted: int, now: datetime, direct_from: int | None
) -> int:
    """Drops up to `wanted` abandoned sessions of the owner's tenant, the longest idle first; how many went.

    Sessions for files of `direct_from` bytes or more may have bytes on the way past the server (None: none
    has). Safe beside other processes: a staging is held, and its row looked at again, before either goes.
    """
    with catalog.read() as tx:
        idle = files.sessions_idle_since(tx, owner, now - IDLE)
    dropped = 0
    for session in idle:
        if dropped == wanted:
            break
        is_direct = direct_from is not None and session.size >= direct_from
        with suppress(Conflict):  # somebody holds it
            dropped += _drop(catalog, blobs, session, now - (IDLE_DIRECT if is_direct else IDLE))
    return dropped


def _drop(catalog: Catalog, blobs: BlobStore, session: UploadSessionRecord, before: datetime) -> bool:
    """Whether the session is gone; it stays if anything happened to it after `before`. Raises `Conflict`."""
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
