"""PVeRA: a VeRA that learns a distribution, of which a merge takes the mean (PEFT `tuners/pvera`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptry.adapter.config import AdapterConfig
from adaptry.methods.drawn import generator, is_saved, projections, widest
from adaptry.methods.method import Method, Parts, Shapes, Width, same, trained_rank
from adaptry.methods.vera import beyond, sliced

if TYPE_CHECKING:
    from torch import Tensor


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    twice = shapes["d"][0]
    rank = trained_rank(config, twice // 2, 256)
    if is_saved(config):
        same(twice, shapes["A"][0], 2 * shapes["B"][1])
    return Width(rank, 0, shapes["b"][0])


def _projections(parts: Parts, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A (means, then log variances) and B from the file, or drawn from the seed as PEFT does."""
    import torch

    if is_saved(parts.config):
        return parts["A"], parts["B"]
    fan_out, fan_in = widest(parts)
    source = generator(parts.config, "projection_prng_key", 0)
    drawn = []
    for rows, columns in ((2 * parts.module.rank, fan_in), (fan_out, parts.module.rank)):
        bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(columns))
        drawn.append(torch.empty(rows, columns).uniform_(-bound, bound, generator=source))
    down, up = (matrix.to(weight.dtype).float() for matrix in drawn)
    return down, up


def _weight(weight: Tensor, parts: Parts) -> Tensor:
    down, up = _projections(parts, weight)
    update = sliced(parts, down[: parts.module.rank], up, tuple(weight.shape))
    return (weight.float() + update).to(weight.dtype)


METHOD = Method(
    name="pvera",
    title="PVeRA",
    tails={"pvera_lambda_b": "b", "pvera_lambda_d": "d"},
    shared={"pvera_A": "A", "pvera_B": "B"},
    tolerance="bit-equal; where projections were not saved, with the torch that drew them",
    width=_width,
    weight=_weight,
    needs=projections,
    misfit=beyond,
    lora="exact",
    lora_rank=lambda module, config: module.rank,
)
