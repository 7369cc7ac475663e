"""PVeRA: a VeRA that learns a distribution, of which a merge takes the mean (PEFT `tuners/pvera`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    add_delta,
    common_number,
    factor_product,
    trained_rank,
)
from adaptry.adapters.methods.random_projections import is_projection_saved, saved_projections
from adaptry.adapters.methods.vera import exceeds_shared_matrices, scale_shared_slices, shared_pair

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    twice = shapes["d"][0]
    rank = trained_rank(config, twice // 2, 256)
    if is_projection_saved(config):
        common_number(twice, shapes["A"][0], 2 * shapes["B"][1])
    return ModuleSize(rank, 0, shapes["b"][0])


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    down, up = shared_pair(parts, 2 * parts.module.rank)  # means, then log variances
    return scale_shared_slices(parts, down[: parts.module.rank], up, fan_out, fan_in)


METHOD = Method(
    name="pvera",
    title="PVeRA",
    key_patterns={"pvera_lambda_b": "b", "pvera_lambda_d": "d"},
    shared={"pvera_A": "A", "pvera_B": "B"},
    tolerance="bit-equal; where projections were not saved, with the torch that drew them",
    module_size=_module_size,
    untrained_roles="[AB]",
    weight=add_delta(factor_product(_factors)),
    required_shared=saved_projections,
    mismatch=exceeds_shared_matrices,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
)
