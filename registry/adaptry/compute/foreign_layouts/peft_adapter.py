"""The description of another tool's adapter in PEFT's terms: modules, sources of tensors, fields of the
config.

It is made without reading tensors. Each module has its own rank and scale. The config expresses them as
`lora_alpha` (`alpha` for a LoHa or a LoKr) and `r`, and in patterns if modules differ.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import field

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.compute.lazy_adapters.lazy_adapter import Json
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ForeignInput:
    """Another tool's adapter, and the user's name for it."""

    adapter: Adapter
    label: str


@dataclass(frozen=True, slots=True)
class RenamedTensor:
    """`role`: the end of the tensor's name in PEFT's file (`lora_A.weight`). `source`: its name in the other
    tool's file. `is_transposed`: PEFT stores it transposed. `rows`: the rows that PEFT has, in PEFT's order
    (None: all, unchanged).
    """

    role: str
    source: str
    is_transposed: bool = False
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class PeftModule:
    """One module: `path` is its name in the model that PEFT wraps, `rank` is the config's, and `scale`
    multiplies the update.
    """

    path: str
    rank: int
    scale: float
    tensors: tuple[RenamedTensor, ...]


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """The whole adapter. `fields` are fields of the config that differ between adapters of the `method`.
    `notes` are sentences for the user. `model` names the model that the adapter belongs to, if the base has
    several.
    """

    modules: tuple[PeftModule, ...]
    fields: Json = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: BaseRecord | None = None
    method: str = "lora"


_OF_LORA: Json = {
    "fan_in_fan_out": False,
    "bias": "none",
    "lora_dropout": 0.0,
    "init_lora_weights": True,
    "use_rslora": False,
    "use_dora": False,
}
_OF_LYCORIS: Json = {"rank_dropout": 0.0, "module_dropout": 0.0, "init_weights": True}


def config_of(lora: PeftAdapter) -> Json:
    """The `adapter_config.json`: the most frequent rank and alpha, and patterns for the others."""
    alphas = {module.path: alpha_for(module.scale, module.rank) for module in lora.modules}
    [(rank, _)] = Counter(module.rank for module in lora.modules).most_common(1)
    [(alpha, _)] = Counter(alphas.values()).most_common(1)
    is_lora = lora.method == "lora"
    return {
        "peft_type": lora.method.upper(),
        "task_type": None,
        "auto_mapping": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha" if is_lora else "alpha": alpha,
        "rank_pattern": {module.path: module.rank for module in lora.modules if module.rank != rank},
        "alpha_pattern": {path: own for path, own in alphas.items() if own != alpha},
        "target_modules": sorted(alphas),
        **(_OF_LORA if is_lora else _OF_LYCORIS),
        "modules_to_save": None,
        **lora.fields,
    }


def alpha_for(scale: float, rank: int) -> float:
    """The alpha for which alpha / rank is `scale`, up to the last bit."""
    first = scale * rank
    near = (first, math.nextafter(first, math.inf), math.nextafter(first, -math.inf))
    alpha = next((alpha for alpha in near if alpha / rank == scale), first)
    return int(alpha) if alpha == int(alpha) else alpha  # engines expect an int if it is whole
