"""A replay of `add_weighted_adapter` over a whole adapter, with random numbers in PEFT's order.

PEFT draws from one global generator for all modules, so a mask depends on all modules before it. Therefore a
replay with random numbers is computed completely, in the model's order, and its factors are held in memory
until they are written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from adaptry.compute.combining.cancellation import is_cancelled, may_cancel
from adaptry.compute.combining.method import CombineInputs, PeftReplay
from adaptry.compute.combining.peft_order import in_model_order
from adaptry.compute.combining.plan import CombinePlan, PlannedSite
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.errors import CheckFailed

if TYPE_CHECKING:
    from torch import Generator

    from adaptry.compute.tensors.lowrank import Factors


def make_replay(plan: CombinePlan) -> Callable[[WeightSite], tuple[Factors, Mapping[str, float]]]:
    """The function that computes one site of a plan that replays PEFT."""
    planned = {each.site: each for each in plan.sites}
    if plan.sites[0].method.replay_mode == "by site":
        return lambda site: _with_figures(plan, planned[site], _replay_site(plan, planned[site], None))

    @functools.cache
    def in_order() -> dict[WeightSite, Factors]:
        import torch

        generator = torch.Generator().manual_seed(plan.recipe.seed)
        paths = {each.site.path: each for each in plan.sites}
        ordered = [paths[path] for path in in_model_order(paths, str(plan.sites[0].values["order"]))]
        initial = plan.parents[0].adapter.config.fields.get("init_lora_weights", True)
        for each in ordered:
            _inject(generator, each.site, each.rank or 0, initial)
        return {each.site: _replay_site(plan, each, generator) for each in ordered}

    return lambda site: _with_figures(plan, planned[site], in_order()[site])


def _with_figures(
    plan: CombinePlan, planned: PlannedSite, made: Factors
) -> tuple[Factors, Mapping[str, float]]:
    """The factors, with an energy of 0 if the updates cancelled; the loss of a replay is not measured."""
    from adaptry.compute.tensors.lowrank import inner_product

    if planned.values.get("density") == 0.0:
        return made, {}  # everything is dropped on request
    is_decomposed = planned.method.delta_form == "dense"  # the factors of noise are as large as their product
    if (is_decomposed or may_cancel(made)) and is_cancelled(plan, planned, inner_product(made, made)):
        return made, {"energy": 0.0}
    return made, {}


def _replay_site(plan: CombinePlan, planned: PlannedSite, generator: Generator | None) -> Factors:
    from adaptry.compute.combining.peft_arithmetic import combine_factors
    from adaptry.compute.tensors.lowrank import Factors

    site = planned.site
    is_transposed = site.kind == "embedding" or (
        site.kind == "linear" and plan.parents[0].adapter.config.fields.get("fan_in_fan_out") is True
    )
    inputs = CombineInputs(
        [plan.updates[place].factors(site) for place in planned.inputs],
        planned.weights,
        planned.values,
        _no_generator,
        planned.rank,
        site_name=site.key,
        replay=PeftReplay(is_transposed, site.kernel, generator),
    )
    if len(plan.recipe.inputs) == 1:  # PEFT: one adapter is always `linear`
        return combine_factors(inputs)
    try:
        made = planned.method.combine(inputs)
    except RuntimeError as error:
        raise CheckFailed(
            f"PEFT's arithmetic fails at {site.key} ({str(error).splitlines()[0]}), since ranks or layouts"
            " there differ or values are too large: use one of Adaptry's own methods, or resize the adapters"
        ) from error
    assert isinstance(made, Factors)
    return made


def _no_generator(_: int) -> Generator:
    raise AssertionError("a replay draws from the replay's generator")


def _inject(generator: Generator, site: WeightSite, rank: int, initial: object) -> None:
    """Draws the numbers that PEFT draws when it adds a module of `rank`: torch's initialisation, then
    PEFT's.
    """
    import torch

    down, up = torch.empty(rank * site.width), torch.empty(site.fan_out * rank)
    if site.kind == "embedding":
        down.normal_(generator=generator)
        up.normal_(generator=generator)
        if initial:
            up.normal_(generator=generator)
        return
    down.uniform_(generator=generator)
    up.uniform_(generator=generator)
    if initial == "gaussian":
        down.normal_(generator=generator)
    elif initial:
        down.uniform_(generator=generator)
