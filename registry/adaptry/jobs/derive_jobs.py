"""Adapters made by jobs: one step each, whose result is a version with its parents and recipe."""

from __future__ import annotations

from typing import Any

from adaptry.compute.lazy_adapters.lazy_adapter import Draft, Parent
from adaptry.core.refs import AdapterName, Ref
from adaptry.jobs.context import Desk
from adaptry.jobs.ipc import Outcome
from adaptry.operations.derive import Derived, derive
from adaptry.registry.jobs_values.tasks import Combine, Convert, Export


def combine(task: Combine, desk: Desk) -> Outcome:
    from adaptry.compute.combining.combine import draft
    from adaptry.compute.combining.plan import plan

    decided = plan(task.recipe, [_parent(desk, text) for text in task.refs])
    return _derived(desk, draft(decided), task.to)


def convert(task: Convert, desk: Desk) -> Outcome:
    from adaptry.compute.converting.base_shapes import Ground
    from adaptry.compute.converting.convert import convert as converted
    from adaptry.compute.converting.convert import must_read
    from adaptry.compute.converting.options import Asked
    from adaptry.operations.base_registry import open_base

    asked = Asked(**task.model_dump(exclude={"source", "to"}))
    parent = _parent(desk, task.source)
    ground = None
    if parent.base is not None:
        is_read = must_read(parent, asked)
        checkpoint = (
            open_base(desk.registry, str(parent.base.id), progress=desk.progress) if is_read else None
        )
        ground = Ground(parent.base, checkpoint)
    return _derived(desk, converted(parent, asked, ground), task.to)


def export(task: Export, desk: Desk) -> Outcome:
    from adaptry.checks.runtimes import parse_runtime
    from adaptry.operations.export import export_version

    parent, runtime = _parent(desk, task.source), parse_runtime(task.runtime)
    asked = task.model_dump(include={"rank", "energy", "exact"})
    derived, made = export_version(desk.registry, parent, runtime, task.to, progress=desk.progress, **asked)
    for note in made.notes:
        desk.say(f"note: {note}")
    told = _told(derived)
    return Outcome(result={**told, "repairs": list(made.repairs), "relative_error": made.equality.error})


def _parent(desk: Desk, text: str) -> Parent:
    version, adapter, base = desk.opened(Ref.parse(text))
    return Parent(adapter, f"{version.name}@{version.number}", version.digest, base)


def _derived(desk: Desk, draft: Draft, to: AdapterName) -> Outcome:
    for note in draft.notes:
        desk.say(f"note: {note}")
    return Outcome(result=_told(derive(desk.registry, draft, to, progress=desk.progress)))


def _told(derived: Derived) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    version = derived.pushed.version
    made = {"version": f"{version.name}@{version.number}", "digest": str(version.digest)}
    return {**made, "is_new": derived.pushed.is_new, "kept_energy": derived.outcome.kept}
