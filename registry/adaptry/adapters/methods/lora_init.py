"""Where a LoRA starts from: the base's weight, or what the adapter's initialisation left of it.

PiSSA (arXiv 2404.02948), OLoRA (2406.01775) and KaSA (2412.06071) take part of a weight out of the base
before training. PEFT takes it out again whenever it loads such an adapter, and so do we, with the same
decomposition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods.lora_config import initialisation
from adaptry.adapters.methods.method import ModuleTensors

if TYPE_CHECKING:
    from torch import Tensor


def initial_weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """What the update is added to, in `weight`'s dtype."""
    rank, scale = parts.module.rank, parts.module.scale
    if parts.config.fields.get("kasa_config"):
        return _without_tail(weight, rank)
    match initialisation(parts.config):
        case "pissa":
            turned = parts.orientation == "conv1d"
            rest = _without_head(weight.T if turned else weight, rank, scale)
            return rest.T if turned else rest
        case "olora":
            return _without_first_rows(weight, rank, scale)
        case _:
            return weight


def _without_head(weight: Tensor, rank: int, scale: float) -> Tensor:
    """PiSSA: less its `rank` largest singular components."""
    import torch

    wide = weight.float()
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    roots = torch.diag(torch.sqrt(values[:rank] / scale))
    down, up = roots @ right[:rank], left[:, :rank] @ roots
    rest: Tensor = wide - scale * up @ down
    return rest.to(weight.dtype)


def _without_first_rows(weight: Tensor, rank: int, scale: float) -> Tensor:
    """OLoRA: less the first `rank` terms of its QR decomposition."""
    import torch

    wide = weight.float()
    up, down = torch.linalg.qr(wide)
    rest: Tensor = wide - scale * up[:, :rank].contiguous() @ down[:rank].contiguous()
    return rest.to(weight.dtype)


def _without_tail(weight: Tensor, rank: int) -> Tensor:
    """KaSA: less its `rank` smallest singular components."""
    import torch

    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    kept = min(weight.shape) - rank
    rest: Tensor = (left[:, :kept] * values[:kept]) @ right[:kept, :]
    return rest.to(weight.dtype)
