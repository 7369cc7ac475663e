"""Merges adapters by a method other than the sum: each weight gets one combined update, without truncation.

The methods are those of `combining`. Each weight is computed and written as a whole; each thread has one in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from adaptry.adapters.methods.row_change import RowChange
from adaptry.bases.module_map import ExtraTarget, TargetTensor
from adaptry.compute.combining import get_combine_method
from adaptry.compute.combining.combine import combine_deltas
from adaptry.compute.combining.plan import CombinePlan, PlannedSite, plan_combination
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite, site_of
from adaptry.compute.lazy_adapters.whole_weights import DROP
from adaptry.compute.merging.bound_input import BoundInput
from adaptry.compute.merging.whole_changes import StoredWeight
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import ReadBias

_TRANSPOSED = ("conv1d", "embedding")
_KINDS = ("linear", "conv1d", "embedding", "conv")


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """The method by which inputs are combined: a name of `COMBINE_METHODS`, its parameters, and the seed for
    random numbers.
    """

    method: str
    parameters: dict[str, Any]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CombinedChange:
    """The combined change of one weight by all inputs."""

    plan: CombinePlan
    planned: PlannedSite
    orientation: str
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.lowrank import Factors

        made = combine_deltas(self.plan, self.planned)
        delta = made.with_unit_scale().dense() if isinstance(made, Factors) else made
        transposed = delta.mT if self.orientation in _TRANSPOSED else delta
        return (stored.float() + transposed.reshape(stored.shape)).to(stored.dtype)

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        return None


@dataclass(frozen=True, slots=True)
class PlacedChange:
    """A combined change, and the input and place to which it is attributed: the first with this site."""

    entry: BoundInput
    target: TargetTensor
    change: CombinedChange


def combine_changes(
    method: MethodChoice, inputs: Sequence[BoundInput], other_base: bool
) -> Iterator[PlacedChange]:
    """The change of each weight that an input updates. `inputs` are bound, in recipe order.

    Raises `Invalid` (unknown method or parameter), `CheckFailed`, `Unsupported` (not a sum of factors, or a
    weight into which only sums can be merged), each with a remedy.
    """
    if get_combine_method(method.method).replay_mode != "no":
        raise Unsupported(
            f"{method.method} reproduces an adapter of PEFT including its rank: make it with "
            f"`adaptry combine --method {method.method}`, and merge that"
        )
    recipe = CombineRecipe(
        method=method.method,
        parameters=method.parameters,
        seed=method.seed,
        inputs=tuple(
            RecipeInput(source=str(place), weight=entry.weight) for place, entry in enumerate(inputs)
        ),
        other_base=other_base,
        energy=1.0,  # methods whose arithmetic depends on a rank get none
        whole_weights=DROP,  # they are merged separately
    )
    decided = plan_combination(
        recipe, [ParentAdapter(entry.adapter, entry.label, base=entry.entry.base) for entry in inputs]
    )
    _check_alone(inputs)
    for planned in decided.sites:
        if planned.inputs:
            yield _combined(decided, planned, inputs[planned.inputs[0]])


def _combined(decided: CombinePlan, planned: PlannedSite, entry: BoundInput) -> PlacedChange:
    target = _placed(entry, planned.site)
    if target.orientation not in _KINDS or target.expert is not None:
        raise Unsupported(
            f"{planned.site.key} is stored as {target.orientation} in the base, into which only sums can be"
            " merged:"
            " make one adapter with `adaptry combine --method"
            f" {decided.recipe.method} --energy 1`, and merge it"
        )
    return PlacedChange(entry, target, CombinedChange(decided, planned, target.orientation))


def _placed(entry: BoundInput, site: WeightSite) -> TargetTensor:
    return next(target for target in entry.module_map.placed if site_of(entry.adapter, target.module) == site)


def _check_alone(inputs: Sequence[BoundInput]) -> None:
    """Raises `CheckFailed` if several inputs replace a weight, or one replaces and another updates it: a
    replacement only makes sense alone.
    """
    changed = {target.tensor for entry in inputs for target in entry.module_map.placed}
    seen: dict[str, str] = {}
    for entry in inputs:
        for extra in entry.module_map.extras:
            if extra.tensor in changed or extra.tensor in seen:
                raise CheckFailed(_double_replacement(entry, extra, seen.get(extra.tensor)))
            seen[extra.tensor] = entry.label


def _double_replacement(entry: BoundInput, extra: ExtraTarget, other: str | None) -> str:
    why = f"{other} replaces it too" if other else "another input updates it"
    return (
        f"{entry.label} replaces {extra.extra.target} completely and {why}, which only a sum"
        " supports: merge without --method, or combine the adapters with --whole-weights first"
    )
