"""The weight to which a LoRA's update is added: the base's, or the part of it that the initialisation left.

PiSSA (arXiv 2404.02948), OLoRA (2406.01775) and KaSA (2412.06071) remove part of a weight from the base
before training. PEFT removes it again whenever it loads such an adapter, and so do we, with the same
decomposition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.adapters.methods.method import ModuleTensors

if TYPE_CHECKING:
    from torch import Tensor


def initial_weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """The weight to which the update is added, in `weight`'s shape and dtype."""
    if parts.is_replaced:
        return weight  # PEFT removes the part from the base's weight, then loads the file's weight
    rank, scale = parts.module.rank, parts.module.scale
    match lora_variant(parts.config).removed:
        case "KaSA":
            return _without_tail(weight, rank)
        case _ if parts.orientation == "embedding":
            return weight  # PEFT initialises it as a plain LoRA
        case "pissa":
            is_transposed = parts.orientation == "conv1d"
            rest = _without_head(weight.T if is_transposed else weight, rank, scale)
            return rest.T if is_transposed else rest
        case "olora":
            return _without_first_rows(weight, rank, scale)
        case _:
            return weight


def _without_head(weight: Tensor, rank: int, scale: float) -> Tensor:
    """PiSSA: `weight` without its `rank` largest singular components."""
    import torch

    wide = weight.float()
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    roots = torch.diag(torch.sqrt(values[:rank] / scale))
    down, up = roots @ right[:rank], left[:, :rank] @ roots
    rest: Tensor = wide - scale * up @ down
    return rest.to(weight.dtype)


def _without_first_rows(weight: Tensor, rank: int, scale: float) -> Tensor:
    """OLoRA: `weight` without the first `rank` terms of its QR decomposition."""
    import torch

    wide = weight.float()
    up, down = torch.linalg.qr(wide)
    rest: Tensor = wide - scale * up[:, :rank].contiguous() @ down[:rank].contiguous()
    return rest.to(weight.dtype)


def _without_tail(weight: Tensor, rank: int) -> Tensor:
    """KaSA: `weight` without its `rank` smallest singular components."""
    import torch

    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    kept = min(weight.shape) - rank
    rest: Tensor = (left[:, :kept] * values[:kept]) @ right[:kept, :]
    return rest.to(weight.dtype)
