"""What of PEFT's `add_weighted_adapter` may be replayed: its own refusals, and what it has no word for."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.adapters.adapter import Adapter
from adaptry.compute.combining.method import CombineMethod
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.core.errors import CheckFailed, Invalid

_SELECTING = ("layers_to_transform", "layers_pattern", "exclude_modules")


def check_replay(recipe: CombineRecipe, parents: Sequence[ParentAdapter], method: CombineMethod) -> None:
    """Raises `Invalid` for what PEFT cannot express, `CheckFailed` where it raises or differs in meaning."""
    if recipe.modules or recipe.energy is not None:
        raise Invalid(
            f"{method.name} is PEFT's, which has no overrides by module and no energy; leave them out"
        )
    if recipe.rank is not None and (method.delta_form != "dense" or len(parents) == 1):
        raise Invalid(f"{method.name} has the rank that PEFT gives it here; rank is for the types with svd")
    for parent in parents:
        fields = parent.adapter.config.fields
        if fields.get("target_parameters"):
            raise CheckFailed(
                f"PEFT combines no adapters with target_parameters, and {parent.label} has them: use `linear`"
            )
        first = parents[0].adapter.config.fields
        if differing := [name for name in _SELECTING if fields.get(name) != first.get(name)]:
            raise CheckFailed(
                f"{parent.label} and {parents[0].label} differ in {differing[0]}, and PEFT takes the first"
                " one's for all, which leaves modules out: use `linear` or another method of our own"
            )
    initial = parents[0].adapter.config.fields.get("init_lora_weights", True)
    if method.replay_mode == "in order" and initial not in (True, False, "gaussian"):
        raise CheckFailed(
            f"{parents[0].label} was begun with init_lora_weights={str(initial)[:40]!r}; what PEFT draws for"
            " that before its masks is not replayed: use dare_linear or dare_ties"
        )


def check_site(site: WeightSite, method: CombineMethod, rank: int) -> None:
    """Raises `CheckFailed` where PEFT's decomposition of this module raises."""
    if method.delta_form != "dense":
        return
    if len(site.kernel) not in (0, 2):
        raise CheckFailed(
            f"PEFT decomposes no {len(site.kernel)}-dimensional convolution ({site.key}); use `svd`"
        )
    if rank > min(site.fan_out, site.width):
        raise CheckFailed(
            f"{site.key} is {site.fan_out}×{site.width} and has no rank {rank}, at which PEFT raises:"
            " ask for a lower rank"
        )


def configured_rank(adapter: Adapter) -> int:
    """The largest rank that the config speaks of, as PEFT takes it, whether a module has it or not."""
    fields = adapter.config.fields
    pattern = fields.get("rank_pattern") or {}
    return max(int(fields.get("r", 8)), *map(int, pattern.values()), 0)
