"""AdaLoRA: a LoRA whose ranks were pruned as it trained (arXiv 2303.10512; PEFT `tuners/adalora`).

A file holds the ranks that are left; the scale is still over the rank that it began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, common_number
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-5  # what PEFT adds to the rank it divides by


def _first_rank(config: AdapterConfig) -> int:
    return config.rank("init_r", 12)


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    common_number(rank, up, shapes["E"][0])
    if rank > _first_rank(config):
        raise ValueError("there are more ranks than it began with")
    return ModuleSize(rank, fan_in, fan_out, "flat")


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("lora_alpha", 8) / (_first_rank(config) + _TINY)


def _up_and_down(parts: ModuleTensors) -> tuple[Tensor, Tensor]:
    """PEFT reckons in float32, but what it cuts to size at load it reads in the base's dtype."""
    import torch

    read = parts.dtype if _is_cut(parts) else torch.float32
    down, values, up = (parts[role].to(read).float() for role in ("A", "E", "B"))
    return up, down * values


def _divisor(parts: ModuleTensors) -> Tensor:
    """PEFT reads the rank in the base's dtype too."""
    import torch

    return torch.tensor([float(_first_rank(parts.config))], dtype=parts.dtype).float() + _TINY


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    up, down = _up_and_down(parts)
    update = up @ down
    if parts.orientation == "conv1d":
        update = update.T
    update = update * parts.config.number("lora_alpha", 8) / _divisor(parts)
    return (weight.float() + update.reshape(weight.shape)).to(weight.dtype)


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    up, down = _up_and_down(parts)
    return up * parts.config.number("lora_alpha", 8) / _divisor(parts), down


def _is_cut(parts: ModuleTensors) -> bool:
    """Whether `rank_pattern`, which names parameters here, says which ranks of the module are left."""
    names = parts.config.pattern_values("rank_pattern")
    return any(name.rpartition(".")[0] == parts.module.path for name in names)


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if config.number("lora_alpha", 8) > 0:
        return None
    return "lora_alpha is not positive, and then PEFT scales by another rank at load than it did in training"


METHOD = Method(
    name="adalora",
    title="AdaLoRA",
    key_patterns={f"lora_{role}": role for role in ("A", "B", "E")},
    module_size=_module_size,
    scale=_scale,
    weight=_weight,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
    unmergeable_reason=_unmergeable_reason,
)
