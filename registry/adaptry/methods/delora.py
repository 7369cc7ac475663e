"""DeLoRA: a LoRA whose strength is a bound of its own, apart from its direction (arXiv 2503.18225; PEFT
`tuners/delora`).

The norms of the base's columns, which scale it, are in the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapter.config import AdapterConfig
from adaptry.methods.method import Method, Parts, Shapes, Width, added, same, trained_rank

if TYPE_CHECKING:
    from torch import Tensor


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    same(fan_in, *shapes["w_norm"])
    same(1, *shapes["lambda"])
    return Width(trained_rank(config, same(rank, up)), fan_in, fan_out)


def _delta(parts: Parts, shape: tuple[int, ...]) -> Tensor:
    import torch

    down, up = parts["A"], parts["B"]
    norms = torch.clamp(down.norm(dim=1), min=1e-4) * torch.clamp(up.norm(dim=0), min=1e-4)
    diagonal = torch.diag_embed(parts["lambda"] / parts.module.rank / norms)
    return up @ diagonal @ down * parts["w_norm"].unsqueeze(0)


METHOD = Method(
    name="delora",
    title="DeLoRA",
    tails={f"delora_{role}": role for role in ("A", "B", "lambda", "w_norm")},
    width=_width,
    weight=added(_delta, rounding="twice"),
    lora="exact",
    lora_rank=lambda module, config: module.rank,
)
