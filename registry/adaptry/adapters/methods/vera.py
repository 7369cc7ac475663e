"""VeRA: two random matrices that all modules share, scaled by trained vectors (arXiv 2310.11454; PEFT `tuners/vera`)."""

from __future__ import annotations

import math
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
from adaptry.adapters.methods.random_projections import (
    is_projection_saved,
    largest_sides,
    saved_projections,
    seeded_generator,
)

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (length,) = shapes["d"]
    rank = trained_rank(config, length, 256)
    if is_projection_saved(config):
        common_number(rank, shapes["A"][0], shapes["B"][1])
    return ModuleSize(rank, 0, shapes["b"][0])


def exceeds_shared_matrices(shapes: Shapes, config: AdapterConfig, fan_out: int, fan_in: int) -> str | None:
    if not is_projection_saved(config) or (shapes["A"][1] >= fan_in and shapes["B"][0] >= fan_out):
        return None
    reach = f"{shapes['B'][0]:,}×{shapes['A'][1]:,}"
    return f"has shared matrices for weights of up to {reach}, and this base's is {fan_out:,}×{fan_in:,}"


def shared_pair(parts: ModuleTensors, rows_of_down: int) -> tuple[Tensor, Tensor]:
    """A and B from the file or, as PEFT draws them at load and holds them in a base of this dtype, from the seed."""
    import torch

    if is_projection_saved(parts.config):
        return parts["A"], parts["B"]
    fan_out, fan_in = largest_sides(parts)
    source = seeded_generator(parts.config, "projection_prng_key", 0)
    drawn = []
    for rows, columns in ((rows_of_down, fan_in), (fan_out, parts.module.rank)):
        bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(columns))
        drawn.append(torch.empty(rows, columns).uniform_(-bound, bound, generator=source))
    down, up = (matrix.to(parts.dtype).float() for matrix in drawn)
    return down, up


def scale_shared_slices(
    parts: ModuleTensors, down: Tensor, up: Tensor, fan_out: int, fan_in: int
) -> tuple[Tensor, Tensor]:
    """diag(b)·B and diag(d)·A with the corner of the shared matrices that this module uses."""
    scaled_up = parts["b"].unsqueeze(-1) * up[:fan_out, :]
    scaled_down = parts["d"][: down.shape[0]].unsqueeze(-1) * down[:, :fan_in]
    return scaled_up, scaled_down


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    down, up = shared_pair(parts, parts.module.rank)
    return scale_shared_slices(parts, down, up, fan_out, fan_in)


METHOD = Method(
    name="vera",
    title="VeRA",
    key_patterns={"vera_lambda_b": "b", "vera_lambda_d": "d"},
    shared={"vera_A": "A", "vera_B": "B"},
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
