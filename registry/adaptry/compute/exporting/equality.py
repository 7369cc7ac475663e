"""The difference between an exported adapter and its original, measured on the two files.

If both are plain factors, ΔW = scale · B·A is computed for each, module by module, and subtracted. If the
original is not a LoRA, the figures are those of the conversion, which compares with the method's update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite, lora_factors, site_of
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors

_ROWS = 4096
"""Maximum number of rows of an embedding's update in memory at once."""


@dataclass(frozen=True, slots=True)
class Equality:
    """`figures` by module (`energy` of the original's update, and `lost`), empty if all modules are equal.
    `compared_modules` is how many were computed and subtracted, and `largest_difference` the largest
    difference of an element among them (None if there were none).
    """

    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    compared_modules: int = 0
    largest_difference: float | None = None

    @property
    def error(self) -> float:
        """‖Δ − Δ'‖ / ‖Δ‖ over all measured modules; 0 if every repair only moved numbers."""
        energy = sum(each.get("energy", 0.0) for each in self.figures.values())
        lost = sum(each.get("lost", 0.0) for each in self.figures.values())
        return math.sqrt(lost / energy) if energy else 0.0


def measure_equality(
    original: ParentAdapter, made: ParentAdapter, outcomes: Sequence[ComputeResult]
) -> Equality:
    """`outcomes` are the results of the repairs between the two, in order."""
    if not outcomes:
        return Equality()
    pairs = _pairs(original.adapter, made.adapter)
    if pairs is None:
        return Equality(_total_figures(outcomes))
    figures: dict[str, Mapping[str, float]] = {}
    same: list[tuple[WeightSite, ModuleSpec]] = []
    largest = 0.0
    for site, before, after in pairs:
        found = _difference(original.adapter, before, made.adapter, after)
        if found is None:
            same.append((site, before))
            continue
        figures[site.key], maximum = found
        largest = max(largest, maximum)
    if figures:  # the share refers to everything that was trained
        figures |= {site.key: _energy(original.adapter, module) for site, module in same}
    return Equality(figures, len(pairs), largest)


def _total_figures(outcomes: Sequence[ComputeResult]) -> Mapping[str, Mapping[str, float]]:
    """The figures of all repairs together: the energy of the original, and the sum of what each repair lost.

    The sum is right because repairs that lose something truncate the update to its largest singular values,
    so that their losses are orthogonal. If an earlier repair measured only other names, the modules were
    renamed in between, and their energy has already been counted.
    """
    total: dict[str, Mapping[str, float]] = {}
    for outcome in outcomes:
        found = {each.module: each.figures for each in outcome.modules if each.figures}
        is_renamed = bool(total) and total.keys().isdisjoint(found)
        for module, figures in found.items():
            if before := total.get(module):
                lost = before.get("lost", 0.0) + figures.get("lost", 0.0)
                total[module] = {**figures, **before, "lost": lost, "rank": figures.get("rank", 0.0)}
            elif is_renamed:
                total[module] = {name: value for name, value in figures.items() if name != "energy"}
            else:
                total[module] = figures
    return total


def _pairs(original: Adapter, made: Adapter) -> list[tuple[WeightSite, ModuleSpec, ModuleSpec]] | None:
    """The modules of both, if both are plain LoRAs with the same names; zero modules are those of `made`."""
    if any(adapter.format is not PEFT or plain_reason(adapter) for adapter in (original, made)):
        return None
    before, after = (
        {site_of(each, module): module for module in each.spec.modules} for each in (original, made)
    )
    if not before or not before.keys() <= after.keys():
        return None
    return [(site, module, after[site]) for site, module in before.items()]


def _difference(
    original: Adapter, before: ModuleSpec, made: Adapter, after: ModuleSpec
) -> tuple[Mapping[str, float], float] | None:
    """The figures, and the largest difference of an element; None if the factors are equal."""
    import torch

    from adaptry.compute.tensors.lowrank import inner_product

    own, new = lora_factors(original, before).with_unit_scale(), lora_factors(made, after).with_unit_scale()
    if _are_same(own, new):
        return None
    lost, maximum = 0.0, 0.0
    for start in range(0, own.up.shape[-2], _ROWS):
        rows = slice(start, start + _ROWS)
        apart = own.up[..., rows, :] @ own.down - new.up[..., rows, :] @ new.down
        lost += float(torch.linalg.vector_norm(apart, dtype=torch.float64)) ** 2
        maximum = max(maximum, float(apart.abs().max()))
    return {"energy": inner_product(own, own), "lost": lost, "rank": float(after.rank)}, maximum


def _energy(adapter: Adapter, module: ModuleSpec) -> Mapping[str, float]:
    from adaptry.compute.tensors.lowrank import inner_product

    own = lora_factors(adapter, module)
    return {"energy": inner_product(own, own), "lost": 0.0, "rank": float(module.rank)}


def _are_same(own: Factors, new: Factors) -> bool:
    """Whether the factors are equal, except for zeros that pad the rank."""
    from adaptry.compute.tensors.lowrank import pad_rank

    rank = max(own.rank, new.rank)
    one, other = pad_rank(own, rank), pad_rank(new, rank)
    return one.up.equal(other.up) and one.down.equal(other.down)
