"""AdaLoRA: a LoRA whose ranks were pruned as it trained (arXiv 2303.10512; PEFT `tuners/adalora`).

A file has the ranks that remain; the scale is still divided by the initial rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, common_number
from adaptry.adapters.methods.row_change import by_rows
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-5  # PEFT adds this to the rank that it divides by


def _first_rank(config: AdapterConfig) -> int:
    return config.rank("init_r", 12)


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    common_number(rank, up, shapes["E"][0])
    if rank > _first_rank(config):
        raise ValueError("there are more ranks than the initial rank")
    return ModuleSize(rank, fan_in, fan_out, "flat")


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("lora_alpha", 8) / (_first_rank(config) + _TINY)


def _up_and_down(parts: ModuleTensors) -> tuple[Tensor, Tensor]:
    """The factors [out, r] and [r, in] in float32. Those that PEFT cuts to size at load pass through the
    base's dtype, as they do there.
    """
    import torch

    read = parts.dtype if _is_cut(parts) else torch.float32
    down, values, up = (parts[role].to(read).float() for role in ("A", "E", "B"))
    return up, down * values


def _divisor(parts: ModuleTensors) -> Tensor:
    """The rank to divide by, rounded to the base's dtype as in PEFT."""
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
    """Whether `rank_pattern`, whose keys are parameters here, says which ranks of the module remain."""
    names = parts.config.pattern_values("rank_pattern")
    return any(name.rpartition(".")[0] == parts.module.path for name in names)


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if config.number("lora_alpha", 8) > 0:
        return None
    return "lora_alpha is not positive, and PEFT then scales by a different rank at load than in training"


METHOD = Method(
    name="adalora",
    title="AdaLoRA",
    key_patterns={f"lora_{role}": role for role in ("A", "B", "E")},
    module_size=_module_size,
    scale=_scale,
    weight=_weight,
    rows=by_rows(_weight, "B"),
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
    unmergeable_reason=_unmergeable_reason,
)
