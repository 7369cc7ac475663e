"""OSF: trains the weight's small singular directions and keeps the large ones (arXiv 2504.07097; PEFT
`tuners/osf`).

The file has the trained directions. They replace those of the base's decomposition, which is computed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
)
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidConfig

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank,) = shapes["S_low"]
    (fan_out, up), (down, fan_in) = shapes["U_low"], shapes["V_low"]
    if rank > min(fan_in, fan_out):
        raise ValueError("more directions than a weight has")
    return ModuleSize(common_number(rank, up, down), fan_in, fan_out)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why PEFT cannot load the directions: it keeps the largest ones, and `rank_pattern` or `effective_rank`
    gives their number.
    """
    minimum, kept = min(weight.fan_out, weight.fan_in), config.fields.get("effective_rank")
    for pattern, rank in config.pattern_values("rank_pattern").items():
        try:
            is_found = config.matches_rank_key(pattern, module.path)
        except InvalidConfig:
            return None  # the pattern was refused, which is reported
        if is_found:
            kept = rank
            break
    trained = minimum - _resolved(kept, minimum)
    if module.rank == trained:
        return None
    return f"has {module.rank:,} trained directions, but effective_rank or rank_pattern gives {trained:,}"


def _resolved(rank: object, minimum: int) -> int:
    """The effective rank: a share of the smaller side if it is a fraction of at most 1; half of that side by
    default.
    """
    if not isinstance(rank, int | float):
        return minimum // 2
    share = minimum * rank if isinstance(rank, float) and 0 < rank <= 1 else rank
    return max(min(minimum, int(share)), 0)


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    kept = min(weight.shape) - parts.module.rank
    # PEFT stores these in the base's dtype before it computes with them.
    left, values, right = (
        part.contiguous().to(weight.dtype).float() for part in (left[:, kept:], values[kept:], right[kept:])
    )
    trained = torch.mm(parts["U_low"] * parts["S_low"], parts["V_low"])
    return (weight + (trained - torch.mm(left * values, right))).to(weight.dtype)


METHOD = Method(
    name="osf",
    title="OSF",
    key_patterns={rf"osf_svd_params\.{role}": role for role in ("U_low", "S_low", "V_low")},
    module_size=_module_size,
    is_relative=lambda traits: True,
    weight=_weight,
    mismatch=_mismatch,
    lora_form="given_base",
    lora_rank=lambda module, config: 2 * module.rank,  # the added directions and the removed ones
    needs_base=True,
    base_at_load="update",
    # A module that keeps all directions trains none. `mismatch` compares their number with the config.
    empty_roles=lambda config, path: frozenset({"U_low", "S_low", "V_low"}),
    tolerance="bit-equal with the same LAPACK in torch and number of threads; otherwise within rounding",
)
