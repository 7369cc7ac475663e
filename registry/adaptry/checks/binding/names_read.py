"""The names under which PEFT reads a file's tensors on a base, if they differ from the names in the file.

For families whose names transformers converts, PEFT converts a LoRA's names in the same way. It removes its
prefix before and adds it afterwards, so it also reads names without the prefix. It removes the adapter's
name.
"""

from __future__ import annotations

from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods.extras import PREFIX
from adaptry.bases.model_classes import converts_adapters

_PREFIXED = "base_model."
_ADAPTER = ".default"


def as_read_on(adapter: Adapter, base: BaseRecord) -> Adapter:
    """`adapter` with the names that PEFT gives its tensors on `base`; usually the adapter itself."""
    model_type = str(base.facts.get("model_type") or "")
    if adapter.format is not PEFT or adapter.config.peft_type != "LORA" or not converts_adapters(model_type):
        return adapter
    names = {name: _read(name) for name in adapter.tensors}
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
