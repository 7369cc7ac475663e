"""The distance between two adapters, by module and in total."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from adaptry.adapters.adapter import Adapter
from adaptry.compute.comparison import aggregate
from adaptry.compute.comparison.measures import (
    SignConflict,
    difference,
    length,
    measure_sign_conflict,
    subspace_overlaps,
    subspaces,
)
from adaptry.compute.comparison.results import AdapterDistance, ModuleDistance
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.tensors.lowrank import Factors, inner_product
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress


def measure_distance(
    before: ParentAdapter, after: ParentAdapter, progress: Progress = no_progress
) -> AdapterDistance:
    """Compares the updates of two adapters. Only the factors of one site are in memory.

    Whole weights (saved modules, biases) are compared by their bytes, with a note. Raises `Unsupported` if an
    adapter is not a sum of factors, and `CheckFailed` if a module has different shapes in the two.
    """
    one, other = open_adapter_deltas(before), open_adapter_deltas(after)
    check_shapes(one, other)
    sites = sorted({*one.modules, *other.modules}, key=lambda site: site.key)
    size = before.adapter.spec.size + after.adapter.spec.size
    measured = []
    for done, site in enumerate(sites, 1):
        measured.append(_measured(site, one, other))
        progress("comparing", size * done // len(sites), size)
    return _aggregate(measured, _whole_weights(before.adapter, after.adapter))


@dataclass(frozen=True, slots=True)
class _SiteDistance:
    """One site: its report, and its contribution to the figures over all sites."""

    report: ModuleDistance
    apart: float
    norms: tuple[float, float]
    product: float
    signs: SignConflict | None


class UpdatedSites(Protocol):
    """An adapter and the sites of its updates."""

    @property
    def parent(self) -> ParentAdapter: ...

    @property
    def modules(self) -> Collection[WeightSite]: ...


def check_shapes(one: UpdatedSites, other: UpdatedSites) -> None:
    """Raises `CheckFailed` if a module has different shapes in the two."""
    by_key = {site.key: site for site in one.modules}
    for site in other.modules:
        known = by_key.get(site.key, site)
        if known != site:
            raise CheckFailed(
                f"{site.key} is {known.fan_out}×{known.width} in {one.parent.label} and"
                f" {site.fan_out}×{site.width} in {other.parent.label}: they have different bases"
            )


def _measured(site: WeightSite, one: AdapterDeltas, other: AdapterDeltas) -> _SiteDistance:
    held = [each.factors(site) if site in each.modules else None for each in (one, other)]
    norms = tuple(length(update) if update else 0.0 for update in held)
    there = [update for update in held if update]
    ranks = (one.rank(site) if held[0] else 0, other.rank(site) if held[1] else 0)
    if len(there) == 1:
        module = ModuleDistance(
            module=site.key, distance=1.0 if held[0] else None, cosine=None, ratio=None, ranks=ranks
        )
        return _SiteDistance(module, max(norms), (norms[0], norms[1]), 0.0, None)
    return _of_both(site, there, ranks, (norms[0], norms[1]))


def _of_both(
    site: WeightSite, both: Sequence[Factors], ranks: tuple[int, int], norms: tuple[float, float]
) -> _SiteDistance:
    apart, product, found = (
        length(difference(both[0], both[1])),
        inner_product(both[0], both[1]),
        measure_sign_conflict(both),
    )
    columns, rows = subspace_overlaps(subspaces(both[0]), subspaces(both[1])) or (None, None)
    report = ModuleDistance(
        module=site.key,
        distance=aggregate.share(apart, norms[0]),
        cosine=aggregate.cosine(product, *norms),
        ratio=aggregate.share(norms[1], norms[0]),
        ranks=ranks,
        conflict=aggregate.conflict([found]),
        column_overlap=columns,
        row_overlap=rows,
        rows_seen=found.sampled_rows,
        rows=found.total_rows,
    )
    return _SiteDistance(report, apart, norms, product, found)


def _aggregate(measured: Sequence[_SiteDistance], notes: Sequence[str]) -> AdapterDistance:
    before, after = (aggregate.joint_norm(each.norms[place] for each in measured) for place in (0, 1))
    farthest = sorted(measured, key=_distance, reverse=True)
    reports = tuple(each.report for each in farthest)
    return AdapterDistance(
        distance=aggregate.share(aggregate.joint_norm(each.apart for each in measured), before),
        cosine=aggregate.cosine(sum(each.product for each in measured), before, after),
        ratio=aggregate.share(after, before),
        conflict=aggregate.conflict(each.signs for each in measured),
        column_overlap=aggregate.mean(module.column_overlap for module in reports),
        row_overlap=aggregate.mean(module.row_overlap for module in reports),
        modules=reports,
        notes=(*notes, *aggregate.sampling_notes(reports)),
    )


def _distance(measured: _SiteDistance) -> float:
    """The relative distance; infinite if only the second adapter has an update."""
    found = measured.report.distance
    return found if found is not None else float("inf") if measured.apart else 0.0


def _whole_weights(before: Adapter, after: Adapter) -> list[str]:
    """Notes about whole weights, which replace the base's."""
    one, other = (
        {extra.target: (adapter, extra.tensor) for extra in adapter.spec.extras}
        for adapter in (before, after)
    )
    differing = [
        target
        for target in sorted(one.keys() | other.keys())
        if target not in one or target not in other or _bytes(*one[target]) != _bytes(*other[target])
    ]
    if not one and not other:
        return []
    alike = len(one.keys() | other.keys()) - len(differing)
    sentence = f"whole weights, compared by their bytes: {alike} the same"
    return [f"{sentence}, {len(differing)} different (first: {differing[0]})" if differing else sentence]


def _bytes(adapter: Adapter, tensor: str) -> tuple[str, tuple[int, ...], bytes]:
    info = adapter.tensors[tensor]
    return info.dtype, info.shape, adapter.tensor_bytes(tensor)
