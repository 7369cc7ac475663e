"""diffusers' LoRA weights: one file, whose keys begin with the part of the pipeline that they change.

Alpha is in the metadata (`lora_adapter_metadata`) or in tensors of its own; a file without either is loaded with
alpha = rank, whatever it was trained with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adaptry import strictjson
from adaptry.adapter.config import LIMITS, AdapterConfig
from adaptry.adapter.header import Header
from adaptry.adapter.layouts.layout import Gathered, Layout
from adaptry.adapter.spec import ModuleKind, ModuleSpec, Spec
from adaptry.errors import Invalid, InvalidConfig

_METADATA = "lora_adapter_metadata"
# Since 0.2x as PEFT names them; before that under `lora.down`, and in attention processors `to_q_lora.down`.
_KEY = re.compile(
    r"(?P<path>.+?)(?:\.lora_(?P<new>[AB])\.weight|[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight"
    r"|\.(?P<alpha>alpha)|\.lora_magnitude_vector(?P<magnitude>\.weight)?)"
)


def config(data: bytes, header: Header) -> AdapterConfig:
    """What the metadata says, by component: `unet.r`, `unet.lora_alpha`. Raises `InvalidConfig`."""
    written = header.metadata.get(_METADATA)
    if written is None:
        return AdapterConfig({})
    try:
        fields = strictjson.loads(written.encode(), LIMITS, f"the file's {_METADATA}")
    except Invalid as error:
        raise InvalidConfig(error.message) from None
    if not isinstance(fields, dict):
        raise InvalidConfig(f"the file's {_METADATA} is not a JSON object")
    return AdapterConfig(fields)


def describe(config: AdapterConfig, header: Header) -> Spec:
    """The modules by their keys, part of the pipeline included."""
    found = Gathered(header.tensors)
    for name in header.tensors:
        match = _KEY.fullmatch(name)
        if match is None:
            found.unclaimed.append(name)
            continue
        role = {"A": "A", "B": "B", "down": "A", "up": "B"}.get(match["new"] or match["old"] or "")
        role = role or ("alpha" if match["alpha"] else "magnitude")
        found.modules.setdefault(match["path"], {})[role] = name
    modules = list(_modules(found, config.fields))
    traits = {"diffusers"}
    if not config.fields and not any("alpha" in module.tensors for module in modules):
        traits.add("alpha_unknown")
    if any("magnitude" in module.tensors for module in modules):
        traits.add("dora")
    return found.spec(config, "lora", modules, traits)


def _modules(found: Gathered, fields: Mapping[str, Any]) -> Iterator[ModuleSpec]:
    for path, roles in found.modules.items():
        down, up = (found.shapes(path).get(role, ()) for role in ("A", "B"))
        if len(down) < 2 or len(up) < 2 or down[0] != up[1]:
            found.unclaimed.extend(roles.values())
            continue
        part = path.partition(".")[0]
        alpha = AdapterConfig(fields).number(f"{part}.lora_alpha", down[0])
        kind: ModuleKind = "conv" if len(down) > 2 else "linear"
        yield found.module(path, (down[0], down[1], up[0]), alpha / down[0], kind)


LAYOUT = Layout(config, describe)
