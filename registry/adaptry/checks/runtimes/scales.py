"""What engines multiply an update by, each by its formula: if it is not the trained one, answers are wrong.

PEFT: α/r of the module, or α/√r with rsLoRA, with patterns for both (arXiv 2106.09685, 2312.03732).
"""

from __future__ import annotations

import math

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.spec import ModuleSpec


def of_config(config: AdapterConfig, module: ModuleSpec) -> float:
    """`lora_alpha / r` of the config, for all modules."""
    return config.number("lora_alpha", 8) / config.rank()


def of_config_rooted(config: AdapterConfig, module: ModuleSpec) -> float:
    """`of_config`, and `lora_alpha / √r` with rsLoRA."""
    if not config.flag("use_rslora"):
        return of_config(config, module)
    return config.number("lora_alpha", 8) / math.sqrt(config.rank())


def of_tensor(config: AdapterConfig, module: ModuleSpec) -> float:
    """`lora_alpha` of the config over the rank of the module's own tensors."""
    return config.number("lora_alpha", 8) / module.rank


def of_tensor_rooted(config: AdapterConfig, module: ModuleSpec) -> float:
    """`of_tensor`, and over its root with rsLoRA."""
    if not config.flag("use_rslora"):
        return of_tensor(config, module)
    return config.number("lora_alpha", 8) / math.sqrt(module.rank)
