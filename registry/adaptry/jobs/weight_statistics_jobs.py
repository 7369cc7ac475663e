"""The job that measures the updates of versions, and stores the figures by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods import METHODS
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.digest import Digest
from adaptry.core.refs import Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.registry.job_types.tasks import WeightStatisticsTask
from adaptry.storage.local.weight_measurements import is_measured, store_distance, store_statistics

if TYPE_CHECKING:
    from adaptry.compute.comparing.updates import AdapterUpdates
    from adaptry.compute.converting.base_shapes import ConversionBase


def measure(task: WeightStatisticsTask, context: JobContext) -> StepResult:
    from adaptry.compute.comparing.statistics import measure_statistics, measure_weight_distance

    registry = context.registry.context
    updates_by_digest = dict(_updates(context, text) for text in task.versions)
    measured = compared = 0
    for digest, updates in updates_by_digest.items():
        if not is_measured(registry, digest):
            store_statistics(registry, digest, measure_statistics(updates, context.progress))
            measured += 1
    (first, one), *others = updates_by_digest.items()
    for digest, other in others:
        if not is_measured(registry, first, digest):
            found = measure_weight_distance(one, other, context.progress)
            store_distance(registry, first, digest, found)
            compared += 1
    return StepResult(result={"measured": measured, "compared": compared})


def _updates(context: JobContext, text: str) -> tuple[Digest, AdapterUpdates]:
    from adaptry.compute.comparing.updates import open_updates

    version, adapter, base = context.open_version(Ref.parse(text))
    parent = ParentAdapter(adapter, version.label, version.digest, base)
    return version.digest, open_updates(parent, _base(context, parent))


def _base(context: JobContext, parent: ParentAdapter) -> ConversionBase | None:
    """The known base of an adapter; with its weights, if the updates depend on them."""
    from adaptry.compute.converting.base_shapes import ConversionBase
    from adaptry.compute.converting.delta import needs_base_weights
    from adaptry.operations.base_registry import open_base

    if parent.base is None:
        return None
    is_read = parent.adapter.spec.method in METHODS and needs_base_weights(parent)
    key = str(parent.base.id)
    checkpoint = open_base(context.registry, key, progress=context.progress) if is_read else None
    return ConversionBase(parent.base, checkpoint)
