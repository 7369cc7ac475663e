"""PVeRA: a VeRA that learns a distribution, of which a merge takes the mean (PEFT `tuners/pvera`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, Parts, Shapes, Width, added, product, same, trained_rank
from adaptry.adapters.methods.random_projections import is_saved, projections
from adaptry.adapters.methods.vera import beyond, shared_pair, sliced

if TYPE_CHECKING:
    from torch import Tensor


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    twice = shapes["d"][0]
    rank = trained_rank(config, twice // 2, 256)
    if is_saved(config):
        same(twice, shapes["A"][0], 2 * shapes["B"][1])
    return Width(rank, 0, shapes["b"][0])


def _factors(parts: Parts, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    down, up = shared_pair(parts, 2 * parts.module.rank)  # means, then log variances
    return sliced(parts, down[: parts.module.rank], up, fan_out, fan_in)


METHOD = Method(
    name="pvera",
    title="PVeRA",
    tails={"pvera_lambda_b": "b", "pvera_lambda_d": "d"},
    shared={"pvera_A": "A", "pvera_B": "B"},
    tolerance="bit-equal; where projections were not saved, with the torch that drew them",
    width=_width,
    fixed="[AB]",
    weight=added(product(_factors)),
    needs=projections,
    misfit=beyond,
    lora="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
)
