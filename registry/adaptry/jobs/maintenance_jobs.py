"""Jobs that keep a registry in order: a base's full digests, everything looked at again, what nobody needs deleted, a version
copied elsewhere."""

from __future__ import annotations

from datetime import timedelta

from adaptry.core.errors import NotFound
from adaptry.jobs.context import Desk
from adaptry.jobs.ipc import Outcome
from adaptry.operations.base_registry import open_base, register
from adaptry.operations.transfer import copy
from adaptry.registry.jobs_values.tasks import Collect, FingerprintBase, Replicate, Verify
from adaptry.storage.maintenance.gc import collect as swept_out
from adaptry.storage.maintenance.integrity import verify as looked_at

_TOLD = 100


def fingerprint(task: FingerprintBase, desk: Desk) -> Outcome:
    checkpoint = open_base(desk.registry, task.base, progress=desk.progress)
    info = register(desk.registry, checkpoint, full=True, progress=desk.progress)
    return Outcome(result={"base": str(info.id), "exact": str(info.roots.exact) if info.roots else None})


def verify(task: Verify, desk: Desk) -> Outcome:
    registry = desk.registry
    problems = looked_at(registry.catalog, registry.blobs, read_bytes=task.read_bytes, progress=desk.progress)
    found = [f"{problem.where}: {problem.reason}" for problem in problems[:_TOLD]]
    for line in found:
        desk.say(line)
    return Outcome(result={"problems": len(problems), "found": found})


def collect(task: Collect, desk: Desk) -> Outcome:
    grace = timedelta(hours=task.grace_hours)
    swept = swept_out(desk.registry, grace=grace, dry_run=task.dry_run, progress=desk.progress)
    return Outcome(result=swept.model_dump(mode="json"))


def replicate(task: Replicate, desk: Desk) -> Outcome:
    from adaptry.storage.connect import connect

    address = desk.remotes.get(task.remote)
    if address is None:
        raise NotFound(
            f"this runner knows no registry called {task.remote!r}: tell it with `adaptry work --remote "
            f"{task.remote}=URL`"
        )
    destination = connect(address)
    try:
        pushed = copy(desk.registry, task.ref, destination, task.to, progress=desk.progress)
    finally:
        destination.close()
    version = pushed.version
    made = {"version": f"{version.name}@{version.number}", "digest": str(version.digest)}
    return Outcome(result={**made, "remote": task.remote, "is_new": pushed.is_new})
