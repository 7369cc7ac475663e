"""A replay of `add_weighted_adapter` over a whole adapter: what may be replayed, and the random numbers in its order.

PEFT draws from one global generator for all modules, so a mask depends on every module before it. A replay
that draws is therefore computed whole, in the model's order, and its factors are held until they are written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.compute.combining.method import CombineInputs, CombineMethod, PeftReplay
from adaptry.compute.combining.peft_order import in_model_order
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.core.errors import CheckFailed, Invalid

if TYPE_CHECKING:
    from torch import Generator

    from adaptry.compute.combining.plan import CombinePlan, PlannedSite
    from adaptry.compute.tensors.lowrank import Factors

_SELECTING = ("layers_to_transform", "layers_pattern", "exclude_modules")


def check_replay(recipe: CombineRecipe, parents: Sequence[ParentAdapter], combination: CombineMethod) -> None:
    """Raises `Invalid` for what PEFT has no word for, `CheckFailed` where it raises or means something else."""
    if recipe.modules or recipe.energy is not None:
        raise Invalid(
            f"{combination.name} is PEFT's, which has no overrides by module and no energy; leave them out"
        )
    if recipe.rank is not None and (combination.delta_form != "dense" or len(parents) == 1):
        raise Invalid(
            f"{combination.name} has the rank that PEFT gives it here; rank is for the types with svd"
        )
    for parent in parents:
        fields = parent.adapter.config.fields
        if fields.get("target_parameters"):
            raise CheckFailed(
                f"PEFT combines no adapters with target_parameters, and {parent.label} has them: use `linear`"
            )
        first = parents[0].adapter.config.fields
        if differing := [name for name in _SELECTING if fields.get(name) != first.get(name)]:
            raise CheckFailed(
                f"{parent.label} and {parents[0].label} differ in {differing[0]}, and PEFT takes the first one's for all, "
                "which leaves modules out: use `linear` or another method of our own"
            )
    initial = parents[0].adapter.config.fields.get("init_lora_weights", True)
    if combination.replay_mode == "in order" and initial not in (True, False, "gaussian"):
        raise CheckFailed(
            f"{parents[0].label} was begun with init_lora_weights={str(initial)[:40]!r}; what PEFT draws for that before "
            "its masks is not replayed: use dare_linear or dare_ties"
        )


def check_site(site: WeightSite, combination: CombineMethod, rank: int) -> None:
    """Raises `CheckFailed` where PEFT's decomposition of this module raises."""
    if combination.delta_form != "dense":
        return
    if len(site.kernel) not in (0, 2):
        raise CheckFailed(
            f"PEFT decomposes no {len(site.kernel)}-dimensional convolution ({site.key}); use `svd`"
        )
    if rank > min(site.fan_out, site.width):
        raise CheckFailed(
            f"{site.key} is {site.fan_out}×{site.width} and has no rank {rank}, at which PEFT raises: ask for a lower rank"
        )


def configured_rank(adapter: Adapter) -> int:
    """The largest rank that the config speaks of, as PEFT takes it, whether a module has it or not."""
    fields = adapter.config.fields
    pattern = fields.get("rank_pattern") or {}
    return max(int(fields.get("r", 8)), *map(int, pattern.values()), 0)


def make_replay(plan: CombinePlan) -> Callable[[WeightSite], tuple[Factors, Mapping[str, float]]]:
    """What computes one site of a plan whose combination replays."""
    planned = {each.site: each for each in plan.sites}
    if plan.sites[0].combination.replay_mode == "by site":
        return lambda site: (_replay_site(plan, planned[site], None), {})

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

    return lambda site: (in_order()[site], {})


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
        len(plan.recipe.inputs),
        site_name=site.key,
        replay=PeftReplay(is_transposed, site.kernel, generator),
    )
    if len(plan.recipe.inputs) == 1:  # PEFT: one adapter is always `linear`
        return combine_factors(inputs)
    try:
        made = planned.combination.combine(inputs)
    except RuntimeError as error:
        raise CheckFailed(
            f"PEFT's arithmetic fails at {site.key} ({str(error).splitlines()[0]}), since ranks or layouts there "
            "differ or values are too large: use a method of our own, or resize the adapters"
        ) from error
    assert isinstance(made, Factors)
    return made


def _no_generator(_: int) -> Generator:
    raise AssertionError("a replay draws from the replay's generator")


def _inject(generator: Generator, site: WeightSite, rank: int, initial: object) -> None:
    """Draws what PEFT draws while it adds a module of `rank`: torch's layers are initialised, then PEFT's own way."""
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
