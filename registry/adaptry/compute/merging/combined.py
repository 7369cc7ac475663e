"""Adapters merged another way than as a sum: each weight gets one update, combined of theirs and never brought to a rank.

The ways are those of `combining`. A weight is formed, changed and written as a whole, one a thread in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptry.bases.module_map import Placed, PlacedExtra, Placement
from adaptry.compute.combining import combination_named
from adaptry.compute.combining.combine import combined_update
from adaptry.compute.combining.plan import CombinePlan, PlannedSite, plan
from adaptry.compute.lazy_adapters.lazy_adapter import Parent
from adaptry.compute.lazy_adapters.sites import Site, site_of
from adaptry.compute.merging.fitting import Weighted
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import Input
from adaptry.core.errors import Refused, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import ReadBias

_TURNED = ("conv1d", "embedding")
_KINDS = ("linear", "conv1d", "embedding", "conv")


@dataclass(frozen=True, slots=True)
class Way:
    """How inputs are combined: a name of `COMBINATIONS`, its parameters, the seed of what it draws."""

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

    def of(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.lowrank import Factors

        made = combined_update(self.plan, self.planned)
        delta = made.folded().dense() if isinstance(made, Factors) else made
        turned = delta.mT if self.orientation in _TURNED else delta
        return (stored.float() + turned.reshape(stored.shape)).to(stored.dtype)


@dataclass(frozen=True, slots=True)
class Combined:
    """One combined change, and the input and place that it is told of: the first that has the site."""

    entry: Weighted
    placement: Placement
    placed: Placed
    change: CombinedChange


def combined(way: Way, inputs: Sequence[tuple[Weighted, Placement]], other_base: bool) -> Iterator[Combined]:
    """The change of every weight that any input updates. `inputs` in the recipe's order, each where it lies in the base.

    Raises `Invalid` (no such method or parameter), `Refused`, `Unsupported` (what is no sum of factors, or is placed in
    a way that only a sum is merged into), each with the way out.
    """
    if combination_named(way.method).replays != "no":
        raise Unsupported(
            f"{way.method} reproduces an adapter that PEFT makes, rank and all: make it with "
            f"`adaptry combine --method {way.method}`, and merge that"
        )
    entries = [entry for entry, _ in inputs]
    recipe = CombineRecipe(
        method=way.method,
        parameters=way.parameters,
        seed=way.seed,
        inputs=tuple(Input(source=str(place), weight=entry.weight) for place, entry in enumerate(entries)),
        other_base=other_base,
        energy=1.0,  # no rank is given to a method whose arithmetic would depend on it
    )
    decided = plan(recipe, [Parent(entry.adapter, entry.label, base=entry.base) for entry in entries])
    _check_alone(inputs)
    for planned in decided.sites:
        if planned.inputs:
            yield _combined(decided, planned, *inputs[planned.inputs[0]])


def _combined(decided: CombinePlan, planned: PlannedSite, entry: Weighted, placement: Placement) -> Combined:
    placed = _placed(entry, placement, planned.site)
    if placed.orientation not in _KINDS or placed.expert is not None:
        raise Unsupported(
            f"{planned.site.key} lies in the base as {placed.orientation}, into which only a sum is merged: make one "
            f"adapter with `adaptry combine --method {decided.recipe.method} --energy 1`, and merge it"
        )
    return Combined(entry, placement, placed, CombinedChange(decided, planned, placed.orientation))


def _placed(entry: Weighted, placement: Placement, site: Site) -> Placed:
    return next(placed for placed in placement.placed if site_of(entry.adapter, placed.module) == site)


def _check_alone(inputs: Sequence[tuple[Weighted, Placement]]) -> None:
    """A saved module replaces the base's weights; replacements of several inputs, or beside an update, are no updates to
    combine. Raises `Refused`."""
    changed = {placed.tensor for _, placement in inputs for placed in placement.placed}
    seen: dict[str, str] = {}
    for entry, placement in inputs:
        for extra in placement.extras:
            if extra.tensor in changed or extra.tensor in seen:
                raise Refused(_twice(entry, extra, seen.get(extra.tensor)))
            seen[extra.tensor] = entry.label


def _twice(entry: Weighted, extra: PlacedExtra, other: str | None) -> str:
    why = f"{other} replaces it too" if other else "another input updates it"
    return (
        f"{entry.label} replaces {extra.extra.target} as a whole and {why}: only a sum says what that comes to; merge "
        "without --method, or combine the adapters with --whole-weights first"
    )
