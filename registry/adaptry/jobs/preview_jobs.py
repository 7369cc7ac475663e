"""Jobs that preview a combination without creating it: its plan, and how its inputs agree."""

from __future__ import annotations

from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.refs import Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.registry.job_types.preview import MAX_MODULES, CombinationPreview, PreviewModule
from adaptry.registry.job_types.tasks import PreviewTask


def preview(task: PreviewTask, context: JobContext) -> StepResult:
    from adaptry.compute.combining.costs import estimate_seconds
    from adaptry.compute.combining.plan import plan_combination
    from adaptry.compute.comparison.parents_report import compare_parents

    plan = plan_combination(task.recipe, [_parent(context, text) for text in task.refs])
    agreement = compare_parents(plan.parents, context.progress)
    by_key = {module.module: module for module in agreement.modules}
    modules = []
    for planned in plan.sites:
        seen = by_key.get(planned.site.key)
        found = PreviewModule(
            module=planned.site.key,
            inputs=len(planned.inputs),
            ranks=planned.ranks,
            rank=planned.expected_rank,
        )
        modules.append(
            found if seen is None else found.model_copy(update=seen.model_dump(exclude={"module"}))
        )
    modules.sort(key=lambda module: (-(module.conflict or 0.0), module.module))
    result = CombinationPreview(
        method=task.method,
        inputs=agreement.parents,
        norms=agreement.norms,
        conflict=agreement.conflict,
        column_overlap=agreement.column_overlap,
        row_overlap=agreement.row_overlap,
        memory=plan.memory,
        seconds=round(estimate_seconds(plan.operations), 1),
        size=plan.size,
        total=len(modules),
        modules=tuple(modules[:MAX_MODULES]),
        notes=(*plan.notes, *agreement.notes),
    )
    return StepResult(result=result.model_dump(mode="json"))


def _parent(context: JobContext, text: str) -> ParentAdapter:
    version, adapter, base = context.open_version(Ref.parse(text))
    return ParentAdapter(adapter, version.label, version.digest, base, base_name=version.base_name)
