"""The formulas of engines for the scale of an update. If it differs from training, answers are wrong.

PEFT: α/r of the module, or α/√r with rsLoRA, with patterns for both (arXiv 2106.09685, 2312.03732).
"""

from __future__ import annotations

import math

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.adapters.spec import ModuleSpec


def of_config(config: AdapterConfig, module: ModuleSpec) -> float:
    """The config's `lora_alpha / r`, for all modules."""
    return config.number("lora_alpha", 8) / config.rank()


def of_config_with_rslora(config: AdapterConfig, module: ModuleSpec) -> float:
    """Like `of_config`, but `lora_alpha / √r` with rsLoRA."""
    if not config.flag("use_rslora"):
        return of_config(config, module)
    return config.number("lora_alpha", 8) / math.sqrt(config.rank())


def of_patterns(config: AdapterConfig, module: ModuleSpec) -> float:
    """The config's `lora_alpha / r` with both patterns, or `lora_alpha / √r` with rsLoRA."""
    return scale_of(config, module.name)[0]


def of_tensor(config: AdapterConfig, module: ModuleSpec) -> float:
    """The config's `lora_alpha` divided by the rank of the module's own tensors."""
    return config.number("lora_alpha", 8) / module.rank


def of_tensor_or_one(config: AdapterConfig, module: ModuleSpec) -> float:
    """Like `of_tensor`, but 1 if `lora_alpha` is 0."""
    return of_tensor(config, module) if config.number("lora_alpha", 8) else 1.0


def of_tensor_with_rslora(config: AdapterConfig, module: ModuleSpec) -> float:
    """Like `of_tensor`, but divided by the root of the rank with rsLoRA."""
    if not config.flag("use_rslora"):
        return of_tensor(config, module)
    return config.number("lora_alpha", 8) / math.sqrt(module.rank)
