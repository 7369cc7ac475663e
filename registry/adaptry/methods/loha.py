"""LoHa: the Hadamard product of two low-rank products (FedPara, arXiv 2108.06098; PEFT `tuners/loha`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.patterns import first_match
from adaptry.adapter.spec import ModuleSpec
from adaptry.methods.method import Method, Parts, Shapes, Width, added, same, trained_rank

if TYPE_CHECKING:
    from torch import Tensor


def scale(config: AdapterConfig, module: ModuleSpec) -> float:
    """α/r, each by its pattern; as LyCORIS methods in PEFT have it."""
    rank = first_match(config.pattern_values("rank_pattern"), module.path, config.rank())
    alpha = first_match(config.pattern_values("alpha_pattern"), module.path, config.number("alpha", 8))
    return float(alpha) / int(rank)


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    first, second = shapes["w1_a"], shapes["w1_b"]
    if shapes["w2_a"] != first or shapes["w2_b"] != second:
        raise ValueError("the two products have different shapes")
    if "t1" in shapes:
        rank = same(first[0], second[0], *shapes["t1"][:2], *shapes["t2"][:2])
        return Width(trained_rank(config, rank), second[1], first[1], "conv")
    rank = trained_rank(config, same(first[1], second[0]))
    return Width(rank, second[1], first[0], "flat")


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
