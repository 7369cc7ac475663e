"""The job that measures the updates of versions, and stores the figures by digest."""

from __future__ import annotations

from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.digest import Digest
from adaptry.core.refs import Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.registry.job_types.tasks import WeightStatisticsTask
from adaptry.storage.local.weight_measurements import is_measured, store_distance, store_statistics


def measure(task: WeightStatisticsTask, context: JobContext) -> StepResult:
    from adaptry.compute.comparing.statistics import measure_statistics, measure_weight_distance

    registry = context.registry.context
    parents = dict(_parent(context, text) for text in task.versions)
    measured = compared = 0
    for digest, parent in parents.items():
        if not is_measured(registry, digest):
            store_statistics(registry, digest, measure_statistics(parent, context.progress))
            measured += 1
    (first, one), *others = parents.items()
    for digest, other in others:
        if not is_measured(registry, first, digest):
            found = measure_weight_distance(one, other, context.progress)
            store_distance(registry, first, digest, found)
            compared += 1
    return StepResult(result={"measured": measured, "compared": compared})


def _parent(context: JobContext, text: str) -> tuple[Digest, ParentAdapter]:
    version, adapter, base = context.open_version(Ref.parse(text))
    return version.digest, ParentAdapter(adapter, version.label, version.digest, base)
