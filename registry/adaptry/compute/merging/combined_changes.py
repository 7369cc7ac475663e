"""Adapters merged by another method than the sum: each weight gets one update, combined of theirs and never
brought to a rank.

The methods are those of `combining`. A weight is formed, changed and written as a whole, one a thread in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.compute.combining import get_combine_method
from adaptry.compute.combining.combine import combine_deltas
from adaptry.compute.combining.plan import CombinePlan, PlannedSite, plan_combination
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite, site_of
from adaptry.compute.merging.fitting import WeightedAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.core.errors import CheckFailed, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import ReadBias

_TURNED = ("conv1d", "embedding")
_KINDS = ("linear", "conv1d", "embedding", "conv")


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """How inputs are combined: a name of `COMBINE_METHODS`, its parameters, the seed of what it draws."""

    method: str
    parameters: dict[str, Any]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CombinedChange:
    """What all inputs together do to one weight."""

    plan: CombinePlan
    planned: PlannedSite
    orientation: str
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.lowrank import Factors

        made = combine_deltas(self.plan, self.planned)
        delta = made.with_unit_scale().dense() if isinstance(made, Factors) else made
        turned = delta.mT if self.orientation in _TURNED else delta
        return (stored.float() + turned.reshape(stored.shape)).to(stored.dtype)


@dataclass(frozen=True, slots=True)
class PlacedChange:
    """One combined change, and the input and place that it is told of: the first that has the site."""

    entry: WeightedAdapter
    module_map: ModuleMap
    target: TargetTensor
    change: CombinedChange


def combine_changes(
    method: MethodChoice, inputs: Sequence[tuple[WeightedAdapter, ModuleMap]], other_base: bool
) -> Iterator[PlacedChange]:
    """The change of each weight that an input updates. `inputs` in recipe order, as they lie in the base.

    Raises `Invalid` (no such method or parameter), `CheckFailed`, `Unsupported` (what is no sum of factors,
    or is placed in a way that only a sum is merged into), each with the way out.
    """
    if get_combine_method(method.method).replay_mode != "no":
        raise Unsupported(
            f"{method.method} reproduces an adapter that PEFT makes, rank and all: make it with "
            f"`adaptry combine --method {method.method}`, and merge that"
        )
    entries = [entry for entry, _ in inputs]
    recipe = CombineRecipe(
        method=method.method,
        parameters=method.parameters,
        seed=method.seed,
        inputs=tuple(
            RecipeInput(source=str(place), weight=entry.weight) for place, entry in enumerate(entries)
        ),
        other_base=other_base,
        energy=1.0,  # no rank is given to a method whose arithmetic would depend on it
    )
    decided = plan_combination(
        recipe, [ParentAdapter(entry.adapter, entry.label, base=entry.base) for entry in entries]
    )
    _check_alone(inputs)
    for planned in decided.sites:
        if planned.inputs:
            yield _combined(decided, planned, *inputs[planned.inputs[0]])


def _combined(
    decided: CombinePlan, planned: PlannedSite, entry: WeightedAdapter, module_map: ModuleMap
) -> PlacedChange:
    target = _placed(entry, module_map, planned.site)
    if target.orientation not in _KINDS or target.expert is not None:
        raise Unsupported(
            f"{planned.site.key} lies in the base as {target.orientation}, into which only a sum is merged:"
            " make one adapter with `adaptry combine --method"
            f" {decided.recipe.method} --energy 1`, and merge it"
        )
    return PlacedChange(entry, module_map, target, CombinedChange(decided, planned, target.orientation))


def _placed(entry: WeightedAdapter, module_map: ModuleMap, site: WeightSite) -> TargetTensor:
    return next(target for target in module_map.placed if site_of(entry.adapter, target.module) == site)


def _check_alone(inputs: Sequence[tuple[WeightedAdapter, ModuleMap]]) -> None:
    """A saved module replaces the base's weights; replacements of several inputs, or beside an update, are no
    updates to combine. Raises `CheckFailed`.
    """
    changed = {target.tensor for _, module_map in inputs for target in module_map.placed}
    seen: dict[str, str] = {}
    for entry, module_map in inputs:
        for extra in module_map.extras:
            if extra.tensor in changed or extra.tensor in seen:
                raise CheckFailed(_twice(entry, extra, seen.get(extra.tensor)))
            seen[extra.tensor] = entry.label


def _twice(entry: WeightedAdapter, extra: ExtraTarget, other: str | None) -> str:
    why = f"{other} replaces it too" if other else "another input updates it"
    return (
        f"{entry.label} replaces {extra.extra.target} as a whole and {why}: only a sum says what that comes"
        " to; merge without --method, or combine the adapters with --whole-weights first"
    )
