"""Garbage collection: removes files that no version needs, and their bytes.

A sweep first marks garbage. Garbage that it finds again a grace period after its mark is deleted: rows, then
bytes. A transaction that needs a marked file again removes the mark, so no needed file is deleted, whatever
the clocks show and however many servers and sweeps there are. The grace period is for slow pushes.

Needed are the files of an adapter's commits (versions, aliases and branches are commits) and of stored bases,
files that are being uploaded, and the inputs of every existing derived version, deleted ones too.
"""

from __future__ import annotations

from datetime import timedelta

from adaptry.core.errors import PermissionDenied
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.catalog import index_updates
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.stale_uploads import purge
from adaptry.storage.maintenance.gc.deletion import sweep
from adaptry.storage.maintenance.gc.scan import GarbageScan, OrphanBlob, scan_garbage
from adaptry.storage.maintenance.gc.sweep_plan import SweepPlan, SweepResult, expected_result, plan_sweep

__all__ = [
    "GRACE",
    "GarbageScan",
    "OrphanBlob",
    "SweepPlan",
    "SweepResult",
    "collect_garbage",
    "expected_result",
    "plan_sweep",
    "scan_garbage",
    "sweep",
]
GRACE = timedelta(hours=24)


def collect_garbage(
    registry: LocalRegistry,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> SweepResult:
    """Scans, plans and sweeps; repeated and concurrent calls do no harm. Raises `PermissionDenied` unless the
    caller is an administrator.

    With `dry_run`, nothing changes and the result is a forecast. Without grace, garbage is scanned twice and
    deleted at once.
    """
    if not registry.identity.may_administer:
        raise PermissionDenied(
            f"{registry.identity.name} may not collect garbage; only an administrator of all namespaces may"
        )
    catalog, blobs = registry.catalog, registry.blobs
    if dry_run:
        return expected_result(plan_sweep(scan_garbage(catalog, blobs, progress), registry.clock(), grace))
    index_updates.complete(catalog)  # removals of versions that a killed process left
    uploads = purge(catalog, blobs, registry.clock())
    swept = sweep(
        catalog, blobs, plan_sweep(scan_garbage(catalog, blobs, progress), registry.clock(), grace), progress
    )
    if not grace and swept.waiting:
        again = sweep(
            catalog,
            blobs,
            plan_sweep(scan_garbage(catalog, blobs, progress), registry.clock(), grace),
            progress,
        )
        swept = again.model_copy(
            update={
                name: getattr(swept, name) + getattr(again, name)
                for name in ("taken", "deleted", "bytes", "revisions")
            }
        )
    return swept.model_copy(update={"uploads": uploads})
