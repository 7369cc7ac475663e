"""The plan of a sweep: a pure function of the scan, the time and the grace period."""

from __future__ import annotations

from datetime import datetime, timedelta

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import Value
from adaptry.storage.catalog.garbage import OwnedFile
from adaptry.storage.maintenance.gc.scan import GarbageScan, OrphanBlob


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """The plan of a sweep: rows to mark, to unmark and to delete, manifests to drop, bytes to mark and to
    delete.

    Bytes are deleted if they were marked before the time `before`.
    """

    now: datetime
    before: datetime
    mark_files: tuple[OwnedFile, ...]
    unmark_files: tuple[OwnedFile, ...]
    release_files: tuple[OwnedFile, ...]
    revisions: tuple[Digest, ...]
    mark_orphans: tuple[OrphanBlob, ...]
    delete_orphans: tuple[OrphanBlob, ...]
    held: frozenset[Digest]


class SweepResult(Value):
    """The result or forecast of a sweep: files `taken` from their owners, blobs `deleted` with their `bytes`,
    `revisions` dropped, garbage `waiting` for its grace period with its `waiting_bytes`, and abandoned
    `uploads` dropped.
    """

    taken: int = 0
    deleted: int = 0
    bytes: int = 0
    revisions: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    uploads: int = 0
    is_dry: bool = False


def plan_sweep(found: GarbageScan, now: datetime, grace: timedelta) -> SweepPlan:
    """Makes the plan; a pure function. New garbage is marked, and deleted when it is found again after the
    grace period.
    """
    before = now - grace
    return SweepPlan(
        now=now,
        before=before,
        mark_files=tuple(file for file in found.unneeded if file.since is None),
        unmark_files=found.needed,
        release_files=tuple(
            file for file in found.unneeded if file.since is not None and file.since <= before
        ),
        revisions=found.revisions,
        mark_orphans=tuple(one for one in found.orphans if one.since is None),
        delete_orphans=tuple(one for one in found.orphans if (one.since or now) <= before),
        held=found.held,
    )


def expected_result(decided: SweepPlan) -> SweepResult:
    """The forecast of a plan."""
    shared = {file.digest for file in decided.mark_files}
    alone = {file.digest: file.size for file in decided.release_files if file.digest not in shared}
    alone |= {one.digest: one.size for one in decided.delete_orphans}
    waiting = [one for one in decided.mark_orphans if one.digest not in alone]
    return SweepResult(
        taken=len(decided.release_files),
        deleted=len(alone),
        bytes=sum(alone.values()),
        revisions=len(decided.revisions),
        waiting=len(decided.mark_files) + len(waiting),
        waiting_bytes=sum(file.size for file in decided.mark_files) + sum(one.size for one in waiting),
        is_dry=True,
    )
