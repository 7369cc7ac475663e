"""Measures the updates of an adapter, and the distance between two, as values that a registry stores.

Everything is computed in float64, one module at a time: from the factors, where the method has them. For a
dense update with more than `FULL_SIDE` rows and columns, only the largest singular values are computed, by
iteration, so that a module takes seconds instead of minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adaptry.adapters.weight_statistics import (
    ModulePairDistance,
    ModuleStatistics,
    WeightDistance,
    WeightStatistics,
    values_per_module,
)
from adaptry.compute.comparison import aggregate
from adaptry.compute.comparison.distance import check_shapes
from adaptry.compute.comparison.measures import difference, length
from adaptry.compute.comparison.updates import AdapterUpdates
from adaptry.compute.tensors.lowrank import Factors, decompose, decompose_dense, inner_product
from adaptry.core.progress import Progress, no_progress

FULL_SIDE = 1024
"""Of a dense update whose sides are both larger, not all singular values are computed."""
_CHUNK = 1 << 22
"""Elements of dense updates that are compared at once."""

Update = Factors | Tensor


def measure_statistics(updates: AdapterUpdates, progress: Progress = no_progress) -> WeightStatistics:
    """The statistics of an adapter's updates. Raises `InvalidWeights` if an update is not finite."""
    sites = sorted(updates.modules, key=lambda site: site.key)
    kept = values_per_module(len(sites))
    size, modules = updates.parent.adapter.spec.size, []
    for done, site in enumerate(sites, 1):
        modules.append(_statistics(site.key, updates.rank(site), updates.update(site), kept))
        progress("measuring", size * done // len(sites), size)
    norm = aggregate.joint_norm(module.norm for module in modules)
    return WeightStatistics(norm=norm, modules=tuple(modules))


def measure_weight_distance(
    one: AdapterUpdates, other: AdapterUpdates, progress: Progress = no_progress
) -> WeightDistance:
    """The distance between two adapters. Modules that only one of them changes count with their norm. Raises
    the errors of `measure_statistics`, and `CheckFailed` if a module has different shapes in the two.
    """
    both = one, other
    check_shapes(*both)
    sites = sorted({*one.modules, *other.modules}, key=lambda site: site.key)
    size = one.parent.adapter.spec.size + other.parent.adapter.spec.size
    modules, norms, products = [], [], []
    for done, site in enumerate(sites, 1):
        updates = [each.update(site) if site in each.modules else None for each in both]
        lengths = [_length(update) if update is not None else 0.0 for update in updates]
        if updates[0] is not None and updates[1] is not None:
            product, apart = _compared(updates[0], updates[1])
        else:
            product, apart = 0.0, max(lengths)
        modules.append(
            ModulePairDistance(
                module=site.key,
                distance=apart,
                cosine=aggregate.cosine(product, *lengths),
            )
        )
        norms.append(lengths)
        products.append(product)
        progress("comparing", size * done // len(sites), size)
    whole = [aggregate.joint_norm(pair[place] for pair in norms) for place in (0, 1)]
    return WeightDistance(
        distance=aggregate.joint_norm(module.distance for module in modules),
        cosine=aggregate.cosine(sum(products), *whole),
        modules=tuple(modules),
    )


def _statistics(key: str, rank: int, update: Update, kept: int) -> ModuleStatistics:
    values, is_all = _singular_values(update, rank, kept)
    return ModuleStatistics(
        module=key,
        rank=rank,
        norm=float(values.norm()) if is_all else _length(update),
        effective_rank=_effective_rank(values) if is_all else None,
        singular_values=tuple(float(f"{value:.6g}") for value in values[:kept].tolist()),
    )


def _singular_values(update: Update, rank: int, kept: int) -> tuple[Tensor, bool]:
    """The singular values in float64, descending, and whether these are all of them; for experts, the values
    of all experts.
    """
    if isinstance(update, Factors):
        return decompose(update, rank=0).values.flatten().sort(descending=True).values, True
    if min(update.shape) <= FULL_SIDE:
        return torch.linalg.svdvals(update.double())[:rank], True
    maximum = rank if rank <= 4 * kept else kept
    return decompose_dense(update, maximum).values[:maximum], maximum == rank


def _length(update: Update) -> float:
    if isinstance(update, Factors):
        return length(update)
    return float(torch.linalg.vector_norm(update, dtype=torch.float64))


def _compared(one: Update, other: Update) -> tuple[float, float]:
    """⟨Δ₁, Δ₂⟩ and ‖Δ₁ − Δ₂‖."""
    if isinstance(one, Factors) and isinstance(other, Factors):
        return inner_product(one, other), length(difference(one, other))
    product = square = 0.0
    for a, b in _rows_of_both(one, other):
        product += float((a * b).sum())
        square += float((a - b).square().sum())
    return product, square**0.5


def _rows_of_both(one: Update, other: Update) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows of both updates, in float64."""
    height = one.up.shape[-2] if isinstance(one, Factors) else one.shape[0]
    width = one.down.shape[-1] if isinstance(one, Factors) else one.shape[1]
    step = max(1, _CHUNK // width)
    for start in range(0, height, step):
        rows = slice(start, start + step)
        yield _rows(one, rows), _rows(other, rows)


def _rows(update: Update, rows: slice) -> Tensor:
    if isinstance(update, Factors):
        exact = update.double()
        return (exact.up[rows] @ exact.down) * exact.scale
    return update[rows].double()


def _effective_rank(values: Tensor) -> float | None:
    """The exponential of the entropy of the normalised singular values (Roy and Vetterli, 2007)."""
    total = float(values.sum())
    if total == 0.0:
        return None
    shares = values[values > 0] / total
    return float((-(shares * shares.log()).sum()).exp())
