"""Measurements of updates in a local registry: jobs store them, and readers of the versions may read them."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.adapters.weight_statistics import MeasuredWeights, WeightDistance, WeightStatistics
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.refs import Ref
from adaptry.storage.catalog import weight_measurements
from adaptry.storage.local.context import RegistryContext


def weight_statistics(context: RegistryContext, ref: Ref) -> WeightStatistics:
    """Implements `Versions.weight_statistics`."""
    with context.catalog.read() as tx:
        digest = Digest(context.resolve(tx, ref).digest)
        found = weight_measurements.find_statistics(tx, digest)
    if found is None:
        raise NotFound(f"the weights of {ref} are not measured yet; {_job_hint(ref)}")
    return found


def weight_distance(context: RegistryContext, ref: Ref, other: Ref) -> WeightDistance:
    """Implements `Versions.weight_distance`."""
    with context.catalog.read() as tx:
        digests = [Digest(context.resolve(tx, each).digest) for each in (ref, other)]
        found = weight_measurements.find_distance(tx, *digests)
    if found is None:
        raise NotFound(f"the weights of {ref} and {other} are not compared yet; {_job_hint(ref, other)}")
    return found


def measured_weights(context: RegistryContext, refs: Sequence[Ref]) -> tuple[MeasuredWeights, ...]:
    """Implements `Versions.measured_weights`."""
    with context.catalog.read() as tx:
        digests = [Digest(columns.digest) for columns in context.resolve_all(tx, refs)]
        return tuple(weight_measurements.find_measured(tx, digests)) if digests else ()


def is_measured(context: RegistryContext, one: Digest, other: Digest | None = None) -> bool:
    """Whether a revision, or a pair of revisions, has been measured already."""
    with context.catalog.read() as tx:
        if other is None:
            return weight_measurements.find_statistics(tx, one) is not None
        return weight_measurements.find_distance(tx, one, other) is not None


def store_statistics(context: RegistryContext, revision: Digest, found: WeightStatistics) -> None:
    with context.write() as tx:
        weight_measurements.store_statistics(tx, revision, found)


def store_distance(context: RegistryContext, one: Digest, other: Digest, found: WeightDistance) -> None:
    with context.write() as tx:
        weight_measurements.store_distance(tx, one, other, found)


def _job_hint(*refs: Ref) -> str:
    fields = " ".join(f"versions={ref}" for ref in refs)
    return f"a job measures them: adaptry jobs submit weight-statistics {fields}"
