"""The plan of a combination, made before weights are read: sites, the inputs at each, method, ranks, costs.

Inputs that do not fit together fail here. The plan is a value that can be printed; `build_combined_adapter`
makes a lazy adapter from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptry.adapters.patterns import check_suffixes, first_match
from adaptry.compute.combining import get_combine_method
from adaptry.compute.combining.base_check import check_one_base, check_sequence
from adaptry.compute.combining.method import CombineMethod, Number
from adaptry.compute.combining.peft_order import order_note
from adaptry.compute.combining.replay_checks import check_replay, check_site, configured_rank
from adaptry.compute.foreign_layouts.to_peft import parent_as_peft
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.lazy_adapters.whole_weights import (
    WholeWeights,
    choose_whole_weights,
    place_beside,
)
from adaptry.compute.recipes.combine import CombineRecipe, ModuleOverride
from adaptry.core.display import format_count, format_size, html_table, short_repr
from adaptry.core.errors import CheckFailed, Invalid, InvalidConfig
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class PlannedSite:
    """One site, which is a weight of the base that inputs change: these inputs (by their position in the
    recipe), their weights there, the method with its parameters, and the `rank` to which its result is
    truncated (None: no truncation, or by `energy`). `all_weights` are the weights of all inputs.
    """

    site: WeightSite
    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    method: CombineMethod
    values: Mapping[str, Number]
    rank: int | None
    ranks: tuple[int, ...]
    all_weights: tuple[float, ...]

    @property
    def expected_rank(self) -> int:
        """The rank of the result, or its maximum if `energy` decides; 0 if all weights are 0."""
        if not self.inputs:
            return 0
        maximum = min(self.site.fan_out, self.site.width)
        made = self.method.rank(self.ranks) if self.method.delta_form == "factors" else maximum
        return min(self.rank, maximum) if self.rank is not None else made

    @property
    def memory(self) -> int:
        """Peak memory in bytes: dense updates in float32 and their decomposition, or factors in float64."""
        elements = self.site.fan_out * self.site.width * self.site.experts
        if self.method.delta_form == "dense":
            return elements * (4 * len(self.inputs) + 8 * 4)
        return (self.site.fan_out + self.site.width) * sum(self.ranks) * self.site.experts * 8 * 4

    @property
    def operations(self) -> float:
        """The approximate number of multiplications."""
        total = sum(self.ranks)
        small = min(self.site.fan_out, self.site.width)
        if self.method.delta_form == "dense":
            dense = self.site.fan_out * self.site.width
            return self.site.experts * dense * (2.0 * total + 20.0 * len(self.inputs) + 14.0 * small)
        return self.site.experts * (self.site.fan_out + self.site.width) * total * (2.0 + 4.0 * total)


@dataclass(frozen=True, slots=True)
class CombinePlan:
    """The steps of a combination, site by site in the order of their names; `notes` are sentences for the
    user.
    """

    recipe: CombineRecipe
    parents: tuple[ParentAdapter, ...]
    updates: tuple[AdapterDeltas, ...]
    sites: tuple[PlannedSite, ...]
    whole: WholeWeights
    notes: tuple[str, ...]

    @property
    def memory(self) -> int:
        """Peak memory in bytes: that of the largest site, since sites are processed one after another."""
        return max(planned.memory for planned in self.sites)

    @property
    def operations(self) -> float:
        """The approximate number of multiplications."""
        return sum(planned.operations for planned in self.sites)

    def __repr__(self) -> str:
        return short_repr(self, self._inputs(), *self._summary(), "nothing is computed yet")

    def _repr_html_(self) -> str:
        rows = [
            (
                planned.site.key,
                str(len(planned.inputs)),
                planned.method.name,
                " + ".join(map(str, planned.ranks)),
                str(planned.expected_rank),
            )
            for planned in self.sites
        ]
        columns = ("module", "inputs", "method", "ranks", "rank")
        return html_table(f"{self._inputs()}: {', '.join(self._summary())}", columns, rows, self.notes)

    def _inputs(self) -> str:
        return " + ".join(parent.label for parent in self.parents)

    def _summary(self) -> tuple[str, ...]:
        return (
            self.recipe.method,
            format_count(len(self.sites), "module"),
            f"at most {format_size(self.size)}",
            f"{format_size(self.memory)} of memory",
        )

    @property
    def uniform_rank(self) -> int | None:
        """The common rank of all modules (0: the largest that one needs); None if ranks may differ."""
        if not self.recipe.uniform:
            return None
        is_known = self.recipe.energy is None
        return max(planned.expected_rank for planned in self.sites) if is_known else 0

    @property
    def size(self) -> int:
        """The maximum size of the result's factors in bytes."""
        width = {"F32": 4, "F16": 2, "BF16": 2}[self.recipe.dtype]
        largest = max(planned.expected_rank for planned in self.sites) if self.recipe.uniform else 0
        return sum(
            max(planned.expected_rank, largest)
            * (planned.site.fan_out + planned.site.width)
            * planned.site.experts
            * width
            for planned in self.sites
        )


def plan_combination(recipe: CombineRecipe, parents: Sequence[ParentAdapter]) -> CombinePlan:
    """Plans the combination of `parents`, which are in the order of the recipe's inputs and in any tool's
    layout.

    Raises `Invalid` (unknown method or parameter), `CheckFailed`, `Unsupported` (inputs that do not fit
    together, or that factors cannot represent).
    """
    seen = [parent_as_peft(parent) for parent in parents]
    parents = [parent for parent, _ in seen]
    if recipe.in_sequence:
        notes = check_sequence(parents, [entry.weight for entry in recipe.inputs])
    else:
        notes = check_one_base(parents, recipe.other_base)
    notes += [note for _, found in seen for note in found]
    method = get_combine_method(recipe.method)
    method.check_values(recipe.parameters)
    if method.replay_mode != "no":
        check_replay(recipe, parents, method)
    updates = [open_adapter_deltas(parent) for parent in parents]
    holders = _holders(updates)
    patterns = _patterns(recipe, [site.key for site in holders])
    overrides = first_match(patterns, [site.key for site in holders])
    used: set[str] = set()
    sites = []
    for site, places in holders.items():
        override = overrides.get(site.key)
        if override is not None:
            used.add(override.match)
        sites.append(_planned(recipe, override, site, places, updates))
    if method.replay_mode == "in order":
        notes.append(order_note([each.site.path for each in sites], str(sites[0].values["order"])))
    if unused := [pattern for pattern in patterns if pattern not in used]:
        raise CheckFailed(
            f"the pattern {unused[0]!r} of the recipe's modules matches none of the {len(sites)} modules "
            f"(such as {sites[0].site.key}), or only modules that an earlier pattern matches"
        )
    if not any(each.inputs for each in sites):
        raise CheckFailed("all weights are 0 at every module, so the result would be empty")
    is_chosen = recipe.whole_weights is not None
    counting = {place for each in sites for place in each.inputs}
    giving = [parent for place, parent in enumerate(parents) if is_chosen or place in counting]
    whole = place_beside(
        choose_whole_weights(giving, recipe.whole_weights),
        [each.site for each in sites if each.inputs],
        parents[0].adapter.config.fields.get("task_type"),
    )
    return CombinePlan(recipe, tuple(parents), tuple(updates), tuple(sites), whole, tuple(notes))


def _patterns(recipe: CombineRecipe, names: Sequence[str]) -> dict[str, ModuleOverride]:
    """The overrides by pattern. Raises `Invalid` for a pattern that is malformed or too slow to match."""
    try:
        check_suffixes((override.match for override in recipe.modules), names)
    except InvalidConfig as error:
        reason = error.message.removeprefix("adapter_config.json: ")
        raise Invalid(f"in the recipe's modules, {reason}") from None
    return {override.match: override for override in recipe.modules}


def _holders(updates: Sequence[AdapterDeltas]) -> dict[WeightSite, list[int]]:
    """The inputs at each site. Raises `CheckFailed` if two inputs have different shapes for the same site."""
    holders: dict[WeightSite, list[int]] = {}
    by_key: dict[str, tuple[WeightSite, str]] = {}
    for place, each in enumerate(updates):
        for site in each.modules:
            known, label = by_key.setdefault(site.key, (site, each.parent.label))
            if known != site:
                raise CheckFailed(
                    f"{site.key} is {_shape(known)} in {label} and {_shape(site)} in {each.parent.label}:"
                    " they do not have the same base"
                )
            holders.setdefault(site, []).append(place)
    return dict(sorted(holders.items(), key=lambda item: item[0].key))


def _shape(site: WeightSite) -> str:
    kernel = "".join(f"×{side}" for side in site.kernel)
    return f"{site.fan_out}×{site.fan_in}{kernel} ({site.kind})"


def _planned(
    recipe: CombineRecipe,
    override: ModuleOverride | None,
    site: WeightSite,
    places: Sequence[int],
    updates: Sequence[AdapterDeltas],
) -> PlannedSite:
    method = get_combine_method(override.method if override and override.method else recipe.method)
    if override and method.replay_mode != "no":
        raise Invalid(
            f"{method.name} reproduces PEFT for a whole adapter, and cannot be used for single modules"
        )
    parameters = dict(recipe.parameters) if not (override and override.method) else {}
    parameters |= override.parameters if override else {}
    fewest, maximum = method.inputs
    if not fewest <= len(recipe.inputs) <= maximum:
        many = f"{fewest}" if fewest == maximum else f"{fewest} to {maximum}"
        raise Invalid(f"{method.name} combines {many} adapters, not {len(recipe.inputs)}")
    all_weights = tuple(_weight(recipe, override, place) for place in range(len(recipe.inputs)))
    if not method.uses_weights and any(weight not in (0, 1) for weight in all_weights):
        raise Invalid(
            f"{method.name} does not use weights: the updates themselves determine their"
            " shares; omit the weights"
        )
    weights = [all_weights[place] for place in places]
    is_replay = method.replay_mode != "no"
    counting = [place for place, weight in zip(places, weights, strict=True) if weight or is_replay]
    ranks = tuple(updates[place].rank(site) for place in counting or places)
    rank = (override.rank if override else None) or recipe.rank
    if is_replay:
        rank = rank or method.rank([configured_rank(each.parent.adapter) for each in updates])
        check_site(site, method, rank)
    elif rank is None and recipe.energy is None and (method.delta_form == "dense" or method.rank is max):
        rank = max(ranks)
    return PlannedSite(
        site,
        tuple(counting),
        tuple(all_weights[place] for place in counting),
        method,
        method.check_values(parameters),
        rank,
        ranks,
        all_weights,
    )


def _weight(recipe: CombineRecipe, override: ModuleOverride | None, place: int) -> float:
    entry = recipe.inputs[place]
    return override.weights.get(entry.source, entry.weight) if override else entry.weight
