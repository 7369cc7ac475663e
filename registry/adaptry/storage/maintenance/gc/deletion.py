"""Executes a sweep plan: marks, rows, then bytes, so that after a crash the next sweep can continue."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.failpoints import reach
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import garbage, idempotency, pending_deletes
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local.idempotency import RETENTION
from adaptry.storage.maintenance.gc.batches import batches
from adaptry.storage.maintenance.gc.sweep_plan import SweepPlan, SweepResult

_DELETE_BATCH = 64
_MAX_BATCH_SECONDS = 30.0
"""Seconds for deleting claimed blobs: a quarter of the time after which other processes consider this one
dead."""


def sweep(
    catalog: Catalog, blobs: BlobStore, decided: SweepPlan, progress: Progress = no_progress
) -> SweepResult:
    """Executes a plan: first marks, then rows, then bytes. Files that have been needed since the scan
    stay.
    """
    sizes = {one.digest: one.size for one in decided.delete_orphans} | {
        file.digest: file.size for file in decided.release_files
    }
    for some in batches(decided.unmark_files):
        with catalog.write() as tx:
            garbage.unmark_unneeded(tx, some)
    for some in batches(decided.mark_files):
        with catalog.write() as tx:
            garbage.mark_unneeded(tx, some, decided.now)
    for orphans in batches(decided.mark_orphans):
        with catalog.write() as tx:
            pending_deletes.mark_for_delete(
                tx, pending_deletes.unowned(tx, [one.digest for one in orphans]), decided.now
            )
    reach("gc.after_marks")
    taken = dropped = 0
    for some in batches(decided.release_files):
        with catalog.write() as tx:
            taken += garbage.delete_unneeded(tx, some)
    for digests in batches(decided.revisions):
        with catalog.write() as tx:
            dropped += garbage.delete_revisions(tx, digests)
    is_over = False
    while not is_over:
        with catalog.write() as tx:
            is_over = idempotency.delete_older(tx, decided.now - RETENTION)
    reach("gc.after_rows")
    deleted = _delete_bytes(catalog, blobs, decided, progress)
    waiting = {one.digest: one.size for one in decided.mark_orphans if one.digest not in deleted}
    reach("gc.after_all")
    return SweepResult(
        taken=taken,
        deleted=len(deleted),
        bytes=sum(sizes.get(digest, 0) for digest in deleted),
        revisions=dropped,
        waiting=len(decided.mark_files) + len(waiting),
        waiting_bytes=sum(file.size for file in decided.mark_files) + sum(waiting.values()),
    )


def _delete_bytes(catalog: Catalog, blobs: BlobStore, decided: SweepPlan, progress: Progress) -> set[Digest]:
    """Deletes all due bytes, in batches: claims them, deletes them, records that they are gone."""
    deleted: set[Digest] = set()
    after: str | None = ""
    while after is not None:
        with blobs.deletion() as may_delete:
            if not may_delete:  # a backup is reading them; a later sweep deletes them
                break
            after = _delete_some(catalog, blobs, decided, after, deleted)
        progress("deleting", len(deleted), max(len(deleted), len(decided.delete_orphans)))
    return deleted


def _delete_some(
    catalog: Catalog, blobs: BlobStore, decided: SweepPlan, after: str, deleted: set[Digest]
) -> str | None:
    """Deletes the next due bytes after that digest; returns the last digest, or None at the end."""
    timeout = _ticks() + _MAX_BATCH_SECONDS
    with catalog.write() as tx:
        some = pending_deletes.due_for_delete(tx, decided.before, after, _DELETE_BATCH)
        if not some:
            return None
        going, began = pending_deletes.start_delete(tx, some, decided.held)
    reach("gc.after_claim")
    done: list[Digest] = []
    try:
        for digest in going:
            if _ticks() > timeout:  # the machine slept, and other processes may consider this one dead
                break
            blobs.delete(digest)
            done.append(digest)
    finally:
        reach("gc.after_bytes")
        with catalog.write() as tx:
            pending_deletes.finish_delete(tx, done, began)
            garbage.delete_derived_data(tx, done)
            if done:
                swept = {"files": len(done), "first": done[0], "last": done[-1]}
                record(tx, "registry.sweep", AuditTarget("registry"), datetime.now(UTC), after=swept)
            pending_deletes.cancel_delete(tx, going[len(done) :], began)
    deleted.update(done)
    return some[-1].hex


def _ticks() -> float:
    """A clock in seconds that also runs while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
