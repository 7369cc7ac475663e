"""An adapter as PEFT reads it on a base, if that differs from its files.

For families whose names transformers converts, PEFT converts a LoRA's names in the same way. It removes its
prefix before the conversion and adds it afterwards, so it also reads names without the prefix. It also
removes the adapter's name. If PEFT would then give experts the factors of other experts, the names are left
as they are. For an IA3 whose config has no `feedforward_modules`, it uses those of the base's architecture.
"""

from __future__ import annotations

import re
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods.extras import PREFIX
from adaptry.bases.model_classes import converts_adapters
from adaptry.checks.binding.default_targets import default_feedforward_modules
from adaptry.checks.binding.expert_factors import keeps_experts_apart

_PREFIXED = "base_model."
_ADAPTER = ".default"
_FEEDFORWARD = "feedforward_modules"


def as_peft_reads(adapter: Adapter, base: BaseRecord) -> Adapter:
    """`adapter` with the names and values that PEFT uses on `base`; usually the adapter itself."""
    model_type = str(base.facts.get("model_type") or "")
    if adapter.format is not PEFT:
        return adapter
    if adapter.config.peft_type == "IA3":
        return _with_feedforward_modules(adapter, model_type)
    is_converted = adapter.config.peft_type == "LORA" and converts_adapters(model_type)
    return _with_converted_names(adapter) if is_converted else adapter


def _with_feedforward_modules(adapter: Adapter, model_type: str) -> Adapter:
    names = default_feedforward_modules(model_type)
    if names is None or adapter.config.fields.get(_FEEDFORWARD) is not None:
        return adapter
    # As a pattern: PEFT requires a list to be part of target_modules, except for its own default names.
    pattern = f".*(?:{'|'.join(map(re.escape, names))})" if names else []
    return replace(adapter, config=AdapterConfig({**adapter.config.fields, _FEEDFORWARD: pattern}))


def _with_converted_names(adapter: Adapter) -> Adapter:
    names = {name: _read(name) for name in adapter.tensors}
    if not keeps_experts_apart(names):
        return adapter
    if all(name == read for name, read in names.items()) or len(set(names.values())) < len(names):
        return adapter
    tensors = {names[name]: info for name, info in adapter.tensors.items()}
    return replace(adapter, header=replace(adapter.header, tensors=tensors))


def _read(name: str) -> str:
    if ".lora_" not in name:
        return name
    stem, _, last = name.rpartition(".")
    bare = f"{stem.removesuffix(_ADAPTER)}.{last}" if f".{last}" != _ADAPTER else stem
    return bare if bare.startswith(_PREFIXED) else f"{PREFIX}{bare}"
