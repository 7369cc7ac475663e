"""Measures the updates of an adapter, and the distance between two, as values that a registry stores.

Everything is computed in float64 from the factors, one module at a time.
"""

from __future__ import annotations

import torch

from adaptry.adapters.weight_statistics import (
    ModulePairDistance,
    ModuleStatistics,
    WeightDistance,
    WeightStatistics,
    values_per_module,
)
from adaptry.compute.comparing import aggregate
from adaptry.compute.comparing.distance import check_shapes
from adaptry.compute.comparing.measures import difference, length
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.tensors.lowrank import Factors, decompose, inner_product
from adaptry.core.progress import Progress, no_progress


def measure_statistics(parent: ParentAdapter, progress: Progress = no_progress) -> WeightStatistics:
    """Raises `Unsupported`, `CheckFailed` unless the adapter is a sum of factors, `InvalidWeights` if an
    update is not finite.
    """
    deltas = open_adapter_deltas(parent)
    sites = sorted(deltas.modules, key=lambda site: site.key)
    kept = values_per_module(len(sites))
    size, modules = parent.adapter.spec.size, []
    for done, site in enumerate(sites, 1):
        modules.append(_statistics(site.key, deltas.rank(site), deltas.factors(site), kept))
        progress("measuring", size * done // len(sites), size)
    norm = aggregate.joint_norm(module.norm for module in modules)
    return WeightStatistics(norm=norm, modules=tuple(modules))


def measure_weight_distance(
    one: ParentAdapter, other: ParentAdapter, progress: Progress = no_progress
) -> WeightDistance:
    """Modules that only one adapter changes count with its norm. Raises as `measure_statistics`, and
    `CheckFailed` if a module has different shapes in the two.
    """
    both = open_adapter_deltas(one), open_adapter_deltas(other)
    check_shapes(*both)
    sites = sorted({*both[0].modules, *both[1].modules}, key=lambda site: site.key)
    size = one.adapter.spec.size + other.adapter.spec.size
    modules, norms, products = [], [], []
    for done, site in enumerate(sites, 1):
        updates = [each.factors(site) if site in each.modules else None for each in both]
        lengths = [length(update) if update else 0.0 for update in updates]
        if updates[0] and updates[1]:
            product = inner_product(updates[0], updates[1])
            apart = length(difference(updates[0], updates[1]))
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


def _statistics(key: str, rank: int, update: Factors, kept: int) -> ModuleStatistics:
    values = decompose(update, rank=0).values.flatten().sort(descending=True).values  # of all experts
    return ModuleStatistics(
        module=key,
        rank=rank,
        norm=float(values.norm()),
        effective_rank=_effective_rank(values),
        singular_values=tuple(float(f"{value:.6g}") for value in values[:kept].tolist()),
    )


def _effective_rank(values: torch.Tensor) -> float | None:
    """The exponential of the entropy of the normalised singular values (Roy and Vetterli, 2007)."""
    total = float(values.sum())
    if total == 0.0:
        return None
    shares = values[values > 0] / total
    return float((-(shares * shares.log()).sum()).exp())
