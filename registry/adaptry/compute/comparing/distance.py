"""How far two adapters are apart, module by module and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptry.adapters.adapter import Adapter
from adaptry.compute.comparing import aggregate
from adaptry.compute.comparing.measures import Signs, difference, length, overlaps, signs, spaces
from adaptry.compute.comparing.results import Distance, ModuleDistance
from adaptry.compute.lazy_adapters.deltas import Updates, updates_of
from adaptry.compute.lazy_adapters.lazy_adapter import Parent
from adaptry.compute.lazy_adapters.sites import Site
from adaptry.compute.tensors.lowrank import Factors, inner
from adaptry.core.errors import Refused
from adaptry.core.progress import Progress, no_progress


def distance(before: Parent, after: Parent, progress: Progress = no_progress) -> Distance:
    """Compares the updates of two adapters; memory holds one site's factors.

    Whole weights (saved modules, biases) are compared by their bytes, and told of in the notes. Raises `Unsupported`
    where one is no sum of factors, `Refused` where both change a module that cannot be the same.
    """
    one, other = updates_of(before), updates_of(after)
    _check_shapes(one, other)
    sites = sorted({*one.modules, *other.modules}, key=lambda site: site.key)
    size = before.adapter.spec.size + after.adapter.spec.size
    measured = []
    for done, site in enumerate(sites, 1):
        measured.append(_measured(site, one, other))
        progress("comparing", size * done // len(sites), size)
    return _over_all(measured, _whole_weights(before.adapter, after.adapter))


@dataclass(frozen=True, slots=True)
class _Measured:
    """One site: what is told of it, and what the figures over all sites are made of."""

    told: ModuleDistance
    apart: float
    norms: tuple[float, float]
    product: float
    signs: Signs | None


def _check_shapes(one: Updates, other: Updates) -> None:
    by_key = {site.key: site for site in one.modules}
    for site in other.modules:
        known = by_key.get(site.key, site)
        if known != site:
            raise Refused(
                f"{site.key} is {known.fan_out}×{known.width} in {one.parent.label} and {site.fan_out}×{site.width} in "
                f"{other.parent.label}: they are not of one base"
            )


def _measured(site: Site, one: Updates, other: Updates) -> _Measured:
    held = [each.factors(site) if site in each.modules else None for each in (one, other)]
    norms = tuple(length(update) if update else 0.0 for update in held)
    there = [update for update in held if update]
    ranks = (one.rank(site) if held[0] else 0, other.rank(site) if held[1] else 0)
    if len(there) == 1:
        told = ModuleDistance(
            module=site.key, distance=1.0 if held[0] else None, cosine=None, ratio=None, ranks=ranks
        )
        return _Measured(told, max(norms), (norms[0], norms[1]), 0.0, None)
    return _of_both(site, there, ranks, (norms[0], norms[1]))


def _of_both(
    site: Site, both: Sequence[Factors], ranks: tuple[int, int], norms: tuple[float, float]
) -> _Measured:
    apart, product, found = length(difference(both[0], both[1])), inner(both[0], both[1]), signs(both)
    columns, rows = overlaps(spaces(both[0]), spaces(both[1])) or (None, None)
    told = ModuleDistance(
        module=site.key,
        distance=aggregate.share(apart, norms[0]),
        cosine=aggregate.cosine(product, *norms),
        ratio=aggregate.share(norms[1], norms[0]),
        ranks=ranks,
        conflict=aggregate.conflict([found]),
        column_overlap=columns,
        row_overlap=rows,
        rows_seen=found.rows,
        rows=found.of,
    )
    return _Measured(told, apart, norms, product, found)


def _over_all(measured: Sequence[_Measured], notes: Sequence[str]) -> Distance:
    before, after = (aggregate.together(each.norms[place] for each in measured) for place in (0, 1))
    farthest = sorted(measured, key=_distance, reverse=True)
    told = tuple(each.told for each in farthest)
    return Distance(
        distance=aggregate.share(aggregate.together(each.apart for each in measured), before),
        cosine=aggregate.cosine(sum(each.product for each in measured), before, after),
        ratio=aggregate.share(after, before),
        conflict=aggregate.conflict(each.signs for each in measured),
        column_overlap=aggregate.mean(module.column_overlap for module in told),
        row_overlap=aggregate.mean(module.row_overlap for module in told),
        modules=told,
        notes=(*notes, *aggregate.sampling(told)),
    )


def _distance(measured: _Measured) -> float:
    """Infinite where the first adapter has nothing and the second something."""
    found = measured.told.distance
    return found if found is not None else float("inf") if measured.apart else 0.0


def _whole_weights(before: Adapter, after: Adapter) -> list[str]:
    """What there is to say of weights that replace the base's."""
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
    told = f"whole weights, compared by their bytes: {alike} the same"
    return [f"{told}, {len(differing)} not (first: {differing[0]})" if differing else told]


def _bytes(adapter: Adapter, tensor: str) -> tuple[str, tuple[int, ...], bytes]:
    info = adapter.tensors[tensor]
    return info.dtype, info.shape, adapter.tensor_bytes(tensor)
