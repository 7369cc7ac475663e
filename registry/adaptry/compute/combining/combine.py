"""Executes a plan: reads, combines, truncates and measures the updates of each site."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.compute.combining.cancellation import is_cancelled, may_cancel, refuse_cancelled
from adaptry.compute.combining.method import CombineInputs
from adaptry.compute.combining.peft_replay import make_replay
from adaptry.compute.combining.plan import CombinePlan, PlannedSite
from adaptry.compute.lazy_adapters.lazy_adapter import Json, LazyAdapter
from adaptry.compute.lazy_adapters.lora import LoraOptions, build_lora
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from adaptry.compute.tensors.lowrank import Factors


def build_combined_adapter(plan: CombinePlan) -> LazyAdapter:
    """The plan's result as a lazy adapter; nothing is computed yet."""
    planned = {planned.site: planned for planned in plan.sites if planned.inputs}
    is_replay = plan.sites[0].method.replay_mode != "no"
    compute = make_replay(plan) if is_replay else _CombinedModules(plan, planned).compute
    result = LoraOptions(plan.recipe.dtype, plan.uniform_rank)
    made = build_lora(
        plan.parents, recorded_recipe(plan), list(planned), compute, result, plan.whole, plan.notes
    )
    return replace(made, is_measured=not is_replay, compute=lambda: refuse_cancelled(made.compute))


def recorded_recipe(plan: CombinePlan) -> Json:
    """The recipe stored with the result: everything that determines its values, with the inputs' digests."""
    recipe = plan.recipe
    kept = recipe.model_dump(
        mode="json", exclude={"inputs", "output", "modules", "whole_weights", "other_base"}
    )
    kept = {key: value for key, value in kept.items() if value is not None}
    inputs = [
        {**parent.recipe_entry(), "weight": entry.weight}
        for parent, entry in zip(plan.parents, recipe.inputs, strict=True)
    ]
    kept |= {"operation": "combine", "inputs": inputs}
    if recipe.modules:
        kept["modules"] = [_recorded_override(plan, place) for place in range(len(recipe.modules))]
    if recipe.whole_weights is not None:
        kept["whole_weights"] = _named(plan, recipe.whole_weights)
    return kept


def _recorded_override(plan: CombinePlan, place: int) -> Json:
    override = plan.recipe.modules[place]
    kept = override.model_dump(mode="json", exclude_defaults=True)
    if override.weights:
        kept["weights"] = [
            [_named(plan, source), weight] for source, weight in sorted(override.weights.items())
        ]
    return kept


def _named(plan: CombinePlan, source: str) -> object:
    """The digest of an input that a recipe names by its source."""
    for entry, parent in zip(plan.recipe.inputs, plan.parents, strict=True):
        if source in (entry.source, parent.label):
            return parent.recipe_entry()
    return source


@dataclass(frozen=True, slots=True)
class _CombinedModules:
    plan: CombinePlan
    planned: Mapping[WeightSite, PlannedSite]

    def compute(self, site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        """The site's float32 factors [..., out, k] and [..., k, in], and figures if something was lost or
        the update is 0.
        """
        from adaptry.compute.tensors.lowrank import (
            Decomposition,
            Factors,
            decompose,
            decompose_dense,
            inner_product,
            rank_for,
        )

        planned, recipe = self.planned[site], self.plan.recipe
        made = combine_deltas(self.plan, planned)
        with _within_float32(planned):
            if isinstance(made, Factors):
                if planned.rank is None and recipe.energy is None:
                    if may_cancel(made) and is_cancelled(self.plan, planned, inner_product(made, made)):
                        return made, {"energy": 0.0, "lost": 0.0, "rank": float(made.rank)}
                    return made, {}
                found: Decomposition = decompose(made, planned.rank)
            else:
                found = decompose_dense(made, planned.rank, self._guess(planned))
        rank = planned.rank or rank_for(found.values, recipe.energy or 1.0)
        kept = found.truncate(rank)
        if is_cancelled(self.plan, planned, found.energy):
            return kept, {"energy": 0.0, "lost": 0.0, "rank": float(kept.rank)}
        return kept, {"energy": found.energy, "lost": found.lost_energy(rank), "rank": float(kept.rank)}

    def _guess(self, planned: PlannedSite) -> Tensor | None:
        """The right singular vectors of the weighted sum [..., k, in], close to those of a pruned one."""
        from adaptry.compute.tensors.lowrank import concatenate, decompose
        from adaptry.compute.tensors.torch_kernel import single_torch_threads

        if planned.rank is None:
            return None
        updates = [self.plan.updates[place].factors(planned.site) for place in planned.inputs]
        pairs = zip(updates, planned.weights, strict=True)
        total = concatenate([each.scaled_by(weight) for each, weight in pairs])
        with single_torch_threads():  # with thin factors, torch's threads wait longer than they compute
            return decompose(total, planned.rank).right


def combine_deltas(plan: CombinePlan, planned: PlannedSite) -> Factors | Tensor:
    """The result of the site's method before truncation: factors, or a tensor [..., out, in] in float32.

    Raises `InvalidWeights` (an input has NaN), `CheckFailed` (the result exceeds float32).
    """
    from adaptry.compute.lazy_adapters.rounding import check_fits

    updates = [plan.updates[place].factors(planned.site) for place in planned.inputs]

    def random(place: int) -> Generator:
        return _generator(plan.recipe.seed, planned.site.key, planned.inputs[place])

    inputs = CombineInputs(
        updates,
        planned.weights,
        planned.values,
        random,
        planned.rank,
        planned.inputs,
        planned.all_weights,
        planned.site.key,
    )
    with _within_float32(planned):
        made = planned.method.combine(inputs)
    check_fits(made, planned.site.key, "F32")
    return made


@contextmanager
def _within_float32(planned: PlannedSite) -> Iterator[None]:
    """Raises `CheckFailed` if a decomposition of finite inputs fails: an intermediate value exceeded
    float32.
    """
    import torch

    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # not in the stubs
        raise CheckFailed(
            f"the result of {planned.method.name} at {planned.site.key} is too large for F32: choose smaller "
            "weights"
        ) from error


def _generator(seed: int, key: str, place: int) -> Generator:
    """A generator whose numbers depend only on the recipe's seed, the site and the input."""
    import torch

    digest = hashlib.sha256(f"{seed}\0{key}\0{place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
