"""Jobs that derive adapters: one step each, whose result is a version with its parents and recipe."""

from __future__ import annotations

from typing import Any

from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.refs import AdapterName, Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.operations.derive import DeriveResult, derive
from adaptry.registry.job_types.tasks import CombineTask, ConvertTask, ExportTask


def combine(task: CombineTask, context: JobContext) -> StepResult:
    from adaptry.compute.combining.combine import build_combined_adapter
    from adaptry.compute.combining.plan import plan_combination

    decided = plan_combination(task.recipe, [_parent(context, text) for text in task.refs])
    return _derived(context, build_combined_adapter(decided), task.to)


def convert(task: ConvertTask, context: JobContext) -> StepResult:
    from adaptry.compute.conversion.base_shapes import ConversionBase
    from adaptry.compute.conversion.convert import convert as converted
    from adaptry.compute.conversion.convert import needs_base_values
    from adaptry.compute.conversion.options import ConvertOptions
    from adaptry.operations.base_registry import open_base

    options = ConvertOptions(**task.model_dump(exclude={"source", "to"}))
    parent = _parent(context, task.source)
    base = None
    if parent.base is not None:
        is_read = needs_base_values(parent, options)
        checkpoint = (
            open_base(context.registry, str(parent.base.id), progress=context.progress) if is_read else None
        )
        base = ConversionBase(parent.base, checkpoint)
    return _derived(context, converted(parent, options, base), task.to)


def export(task: ExportTask, context: JobContext) -> StepResult:
    from adaptry.checks.runtimes import parse_runtime
    from adaptry.operations.export import export_version

    parent, runtime = _parent(context, task.source), parse_runtime(task.runtime)
    options = task.model_dump(include={"rank", "energy", "exact", "max_error"})
    derived, made = export_version(
        context.registry, parent, runtime, task.to, progress=context.progress, **options
    )
    for note in made.notes:
        context.log(f"note: {note}")
    result = _result_json(derived)
    return StepResult(result={**result, "repairs": list(made.repairs), "relative_error": made.equality.error})


def _parent(context: JobContext, text: str) -> ParentAdapter:
    version, adapter, base = context.open_version(Ref.parse(text))
    return ParentAdapter(adapter, version.label, version.digest, base, base_name=version.base_name)


def _derived(context: JobContext, lazy_adapter: LazyAdapter, to: AdapterName) -> StepResult:
    for note in lazy_adapter.notes:
        context.log(f"note: {note}")
    return StepResult(
        result=_result_json(derive(context.registry, lazy_adapter, to, progress=context.progress))
    )


def _result_json(derived: DeriveResult) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    version = derived.pushed.version
    made = {"version": version.label, "digest": str(version.digest)}
    return {**made, "is_new": derived.pushed.is_new, "kept_energy": derived.outcome.kept}
