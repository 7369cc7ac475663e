"""LoHa: the Hadamard product of two low-rank products (FedPara, arXiv 2108.06098; PEFT `tuners/loha`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.patterns import first_match
from adaptry.adapter.spec import ModuleSpec
from adaptry.methods.method import Method, Parts, Shapes, Width, added

if TYPE_CHECKING:
    from torch import Tensor


def scale(config: AdapterConfig, module: ModuleSpec) -> float:
    """α/r, each by its pattern; as LyCORIS methods in PEFT have it."""
    rank = first_match(config.pattern_values("rank_pattern"), module.path, config.rank())
    alpha = first_match(config.pattern_values("alpha_pattern"), module.path, config.number("alpha", 8))
    return float(alpha) / int(rank)


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    if "t1" in shapes:
        return Width(shapes["w1_b"][0], shapes["w1_b"][1], shapes["w1_a"][1], "conv")
    return Width(shapes["w1_b"][0], shapes["w1_b"][1], shapes["w1_a"][0])


def _delta(parts: Parts, shape: tuple[int, ...]) -> Tensor:
    import torch

    if "t1" in parts:
        halves = [
            torch.einsum("ijkl,jr,ip->prkl", parts[f"t{n}"], parts[f"w{n}_b"], parts[f"w{n}_a"])
            for n in (1, 2)
        ]
    else:
        halves = [parts[f"w{n}_a"] @ parts[f"w{n}_b"] for n in (1, 2)]
    return (halves[0] * halves[1] * parts.module.scale).reshape(shape)


METHOD = Method(
    name="loha",
    title="LoHa",
    tails={rf"hada_{role}": role for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    width=_width,
    scale=scale,
    weight=added(_delta),
    lora="exact",
    lora_rank=lambda module, config: module.rank**2,
)
