"""The job that measures the updates of versions, and stores the figures by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods import METHODS
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CheckFailed, InvalidWeights, NotFound, Unsupported
from adaptry.core.refs import Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.registry.job_types.tasks import WeightStatisticsTask
from adaptry.storage.local.weight_measurements import is_measured, store_distance, store_statistics

if TYPE_CHECKING:
    from adaptry.compute.comparison.updates import AdapterUpdates
    from adaptry.compute.conversion.base_shapes import ConversionBase


_UNMEASURABLE = (NotFound, CheckFailed, Unsupported, InvalidWeights)
"""Errors of one version: its base's weights are not here, it does not fit its base, or it is too large."""


def measure(task: WeightStatisticsTask, context: JobContext) -> StepResult:
    """Measures each version that can be measured, and its distance from the first one. Logs why others cannot
    be measured, and fails if none can.
    """
    from adaptry.compute.comparison.statistics import measure_weight_distance

    registry = context.registry.context
    parents = dict(_open(context, text) for text in task.versions)
    updates_by_digest: dict[Digest, AdapterUpdates] = {}
    failures: list[AdaptryError] = []
    measured = compared = 0
    for digest, parent in parents.items():
        try:
            updates_by_digest[digest], is_new = _measured(context, digest, parent)
            measured += is_new
        except _UNMEASURABLE as error:
            context.log(f"{parent.label} is not measured: {error.message}")
            failures.append(error)
    if failures and not updates_by_digest:
        raise failures[0]
    first = next(iter(parents))
    one = updates_by_digest.pop(first, None)
    for digest, other in updates_by_digest.items():
        if one and not is_measured(registry, first, digest):
            found = measure_weight_distance(one, other, context.progress)
            store_distance(registry, first, digest, found)
            compared += 1
    return StepResult(result={"measured": measured, "compared": compared})


def _open(context: JobContext, text: str) -> tuple[Digest, ParentAdapter]:
    version, adapter, base = context.open_version(Ref.parse(text))
    return version.digest, ParentAdapter(adapter, version.label, version.digest, base)


def _measured(context: JobContext, digest: Digest, parent: ParentAdapter) -> tuple[AdapterUpdates, bool]:
    """The adapter's updates, after storing its statistics; and whether the statistics are new."""
    from adaptry.compute.comparison.statistics import measure_statistics
    from adaptry.compute.comparison.updates import open_updates

    updates = open_updates(parent, _base(context, parent))
    if is_measured(context.registry.context, digest):
        return updates, False
    store_statistics(context.registry.context, digest, measure_statistics(updates, context.progress))
    return updates, True


def _base(context: JobContext, parent: ParentAdapter) -> ConversionBase | None:
    """The known base of an adapter; with its weights, if the updates depend on them."""
    from adaptry.compute.conversion.base_shapes import ConversionBase
    from adaptry.compute.conversion.delta import needs_base_weights
    from adaptry.operations.base_registry import open_base

    if parent.base is None:
        return None
    is_read = parent.adapter.spec.method in METHODS and needs_base_weights(parent)
    key = str(parent.base.id)
    checkpoint = open_base(context.registry, key, progress=context.progress) if is_read else None
    return ConversionBase(parent.base, checkpoint)
