"""Whether a recipe can be replayed with PEFT's `add_weighted_adapter`: PEFT's refusals, and missing
features.
"""

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
    """Raises `Invalid` for options that PEFT lacks, and `CheckFailed` if PEFT would raise an error or compute
    something else.
    """
    if recipe.modules or recipe.energy is not None:
        raise Invalid(
            f"{method.name} reproduces PEFT, which supports neither overrides by module nor energy; omit them"
        )
    if recipe.rank is not None and (method.delta_form != "dense" or len(parents) == 1):
        raise Invalid(f"PEFT determines the rank of {method.name}; rank is only for the types with svd")
    for parent in parents:
        fields = parent.adapter.config.fields
        if fields.get("target_parameters"):
            raise CheckFailed(
                f"PEFT cannot combine adapters with target_parameters, which {parent.label} has: use `linear`"
            )
        first = parents[0].adapter.config.fields
        if differing := [name for name in _SELECTING if fields.get(name) != first.get(name)]:
            raise CheckFailed(
                f"{parent.label} and {parents[0].label} differ in {differing[0]}, but PEFT uses the first"
                " one's for all, which drops modules: use `linear` or another of Adaptry's own methods"
            )
    initial = parents[0].adapter.config.fields.get("init_lora_weights", True)
    if method.replay_mode == "in order" and initial not in (True, False, "gaussian"):
        raise CheckFailed(
            f"{parents[0].label} has init_lora_weights={str(initial)[:40]!r}; the numbers that PEFT draws"
            " for it before its masks are not replayed: use dare_linear or dare_ties"
        )


def check_site(site: WeightSite, method: CombineMethod, rank: int) -> None:
    """Raises `CheckFailed` if PEFT's decomposition of this module raises an error, or gives factors of a
    lower rank than the config, which PEFT cannot load.
    """
    if method.delta_form != "dense":
        return
    if len(site.kernel) not in (0, 2):
        raise CheckFailed(
            f"PEFT cannot decompose a {len(site.kernel)}-dimensional convolution ({site.key}); use `svd`"
        )
    if rank > min(site.fan_out, site.width):
        raise CheckFailed(
            f"{site.key} is {site.fan_out}×{site.width} and cannot have rank {rank}, so PEFT could not load"
            " the result: choose a lower rank"
        )


def configured_rank(adapter: Adapter) -> int:
    """The largest rank in the config, as PEFT uses it, whether or not a module has it."""
    fields = adapter.config.fields
    pattern = fields.get("rank_pattern") or {}
    return max(int(fields.get("r", 8)), *map(int, pattern.values()), 0)
