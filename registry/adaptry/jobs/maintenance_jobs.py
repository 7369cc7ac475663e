"""Maintenance jobs: full digests of a base, verification, garbage collection, and replication."""

from __future__ import annotations

from datetime import timedelta

from adaptry.core.errors import NotFound
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.operations.base_registry import open_base, register_base
from adaptry.operations.transfer import copy
from adaptry.registry.job_types.tasks import CollectTask, FingerprintBaseTask, ReplicateTask, VerifyTask
from adaptry.storage.maintenance.gc import collect_garbage as swept_out
from adaptry.storage.maintenance.integrity import verify as looked_at

_MAX_LISTED = 100


def fingerprint(task: FingerprintBaseTask, context: JobContext) -> StepResult:
    checkpoint = open_base(context.registry, task.base, progress=context.progress)
    info = register_base(context.registry, checkpoint, full=True, progress=context.progress)
    return StepResult(result={"base": str(info.id), "exact": str(info.roots.exact) if info.roots else None})


def verify(task: VerifyTask, context: JobContext) -> StepResult:
    registry = context.registry
    problems = looked_at(
        registry.catalog, registry.blobs, read_bytes=task.read_bytes, progress=context.progress
    )
    found = [f"{problem.where}: {problem.reason}" for problem in problems[:_MAX_LISTED]]
    for line in found:
        context.log(line)
    damage = sum(problem.is_damage for problem in problems)
    result = {"problems": damage, "outdated": len(problems) - damage, "found": found}
    return StepResult(result=result)


def collect(task: CollectTask, context: JobContext) -> StepResult:
    grace = timedelta(hours=task.grace_hours)
    swept = swept_out(context.registry, grace=grace, dry_run=task.dry_run, progress=context.progress)
    return StepResult(result=swept.model_dump(mode="json"))


def replicate(task: ReplicateTask, context: JobContext) -> StepResult:
    from adaptry.storage.connect import connect

    address = context.remotes.get(task.remote)
    if address is None:
        raise NotFound(
            f"this runner has no registry called {task.remote!r}: configure it with `adaptry work --remote "
            f"{task.remote}=URL`"
        )
    destination = connect(address)
    try:
        pushed = copy(context.registry, task.ref, destination, task.to, progress=context.progress)
    finally:
        destination.close()
    version = pushed.version
    made = {"version": version.label, "digest": str(version.digest)}
    return StepResult(result={**made, "remote": task.remote, "is_new": pushed.is_new})
