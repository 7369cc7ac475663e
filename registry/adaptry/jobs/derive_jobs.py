"""Adapters made by jobs: one step each, whose result is a version with its parents and recipe."""

from __future__ import annotations

from typing import Any

from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.refs import AdapterName, Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.operations.derive import DeriveResult, derive
from adaptry.registry.job_types.tasks import CombineTask, ConvertTask, ExportTask


def combine(task: CombineTask, desk: JobContext) -> StepResult:
    from adaptry.compute.combining.combine import build_combined_adapter
    from adaptry.compute.combining.plan import plan_combination

    decided = plan_combination(task.recipe, [_parent(desk, text) for text in task.refs])
    return _derived(desk, build_combined_adapter(decided), task.to)


def convert(task: ConvertTask, desk: JobContext) -> StepResult:
    from adaptry.compute.converting.base_shapes import ConversionBase
    from adaptry.compute.converting.convert import convert as converted
    from adaptry.compute.converting.convert import needs_base_values
    from adaptry.compute.converting.options import ConvertOptions
    from adaptry.operations.base_registry import open_base

    asked = ConvertOptions(**task.model_dump(exclude={"source", "to"}))
    parent = _parent(desk, task.source)
    ground = None
    if parent.base is not None:
        is_read = needs_base_values(parent, asked)
        checkpoint = (
            open_base(desk.registry, str(parent.base.id), progress=desk.progress) if is_read else None
        )
        ground = ConversionBase(parent.base, checkpoint)
    return _derived(desk, converted(parent, asked, ground), task.to)


def export(task: ExportTask, desk: JobContext) -> StepResult:
    from adaptry.checks.runtimes import parse_runtime
    from adaptry.operations.export import export_version

    parent, runtime = _parent(desk, task.source), parse_runtime(task.runtime)
    asked = task.model_dump(include={"rank", "energy", "exact"})
    derived, made = export_version(desk.registry, parent, runtime, task.to, progress=desk.progress, **asked)
    for note in made.notes:
        desk.log(f"note: {note}")
    told = _result_json(derived)
    return StepResult(result={**told, "repairs": list(made.repairs), "relative_error": made.equality.error})


def _parent(desk: JobContext, text: str) -> ParentAdapter:
    version, adapter, base = desk.open_version(Ref.parse(text))
    return ParentAdapter(adapter, f"{version.name}@{version.number}", version.digest, base)


def _derived(desk: JobContext, draft: LazyAdapter, to: AdapterName) -> StepResult:
    for note in draft.notes:
        desk.log(f"note: {note}")
    return StepResult(result=_result_json(derive(desk.registry, draft, to, progress=desk.progress)))


def _result_json(derived: DeriveResult) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    version = derived.pushed.version
    made = {"version": f"{version.name}@{version.number}", "digest": str(version.digest)}
    return {**made, "is_new": derived.pushed.is_new, "kept_energy": derived.outcome.kept}
