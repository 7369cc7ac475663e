"""What a foreign LoRA is in PEFT's words: its modules, where each tensor comes from, and the config's fields.

Values only: no tensor is read to make one. Each module has its own rank and scale; the config says them as
`lora_alpha` and `r`, and in the patterns where modules differ.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.compute.lazy_adapters.lazy_adapter import Json


@dataclass(frozen=True, slots=True)
class ForeignInput:
    """A foreign adapter and what the user called it."""

    adapter: Adapter
    label: str


@dataclass(frozen=True, slots=True)
class RenamedTensor:
    """`role`: how the tensor's name ends in PEFT's file (`lora_A.weight`); `source`: its name in the foreign
    file; `is_turned`: whether PEFT has it the other way round.
    """

    role: str
    source: str
    is_turned: bool = False


@dataclass(frozen=True, slots=True)
class PeftModule:
    """One module: `path` is its name in the model that PEFT wraps, `scale` multiplies B·A."""

    path: str
    rank: int
    scale: float
    tensors: tuple[RenamedTensor, ...]


@dataclass(frozen=True, slots=True)
class PeftLora:
    """The whole adapter. `fields` are those of the config that not every LoRA has alike; `notes` are
    sentences for the reader; `model` is the one it is for, of a base that holds several.
    """

    modules: tuple[PeftModule, ...]
    fields: Json = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: BaseRecord | None = None


def config_of(lora: PeftLora) -> Json:
    """The `adapter_config.json`: the commonest rank and alpha, and patterns for the others."""
    alphas = {module.path: alpha_for(module.scale, module.rank) for module in lora.modules}
    [(rank, _)] = Counter(module.rank for module in lora.modules).most_common(1)
    [(alpha, _)] = Counter(alphas.values()).most_common(1)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "auto_mapping": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module.path: module.rank for module in lora.modules if module.rank != rank},
        "alpha_pattern": {path: own for path, own in alphas.items() if own != alpha},
        "target_modules": sorted(alphas),
        "fan_in_fan_out": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        **lora.fields,
    }


def alpha_for(scale: float, rank: int) -> float:
    """The alpha that is `scale` once it is divided by the rank: to the last bit, or next to it."""
    first = scale * rank
    near = (first, math.nextafter(first, math.inf), math.nextafter(first, -math.inf))
    alpha = next((alpha for alpha in near if alpha / rank == scale), first)
    return int(alpha) if alpha == int(alpha) else alpha  # engines expect whole numbers as such
