"""torchtune's LoRA with torchtune's tensor names, in files with PEFT's file names.

torchtune writes these names only in a pickle (`adapter_model.pt`); the error that refuses the pickle has a
command that converts it to safetensors. For models that it knows, it also writes a file with PEFT's names,
which is read as PEFT's. Here modules get transformers' names (`torchtune/models/convert_weights.py ·
_FROM_HF`), but rows of queries and keys stay in torchtune's order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from adaptry.adapters.config import AdapterConfig, parse_config
from adaptry.adapters.header import SafetensorsHeader
from adaptry.adapters.layouts.layout import AdapterLayout, ForeignTensors
from adaptry.adapters.spec import ModuleSpec, Spec

_KEY = re.compile(
    r"(?:layers\.(?P<layer>\d+)\.(?P<inside>attn\.(?:[qkv]|output)_proj|mlp\.w[123])|(?P<head>output))"
    r"\.(?:lora_(?P<factor>[ab])\.weight|(?P<magnitude>magnitude))"
)
_NAMES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}


def is_key(name: str) -> bool:
    """Whether a tensor has a name of torchtune's form."""
    return _KEY.fullmatch(name) is not None


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """The modules by their names in transformers' model."""
    found = ForeignTensors(header.tensors)
    for name in header.tensors:
        if match := _KEY.fullmatch(name):
            role = {"a": "A", "b": "B"}.get(match["factor"] or "", "magnitude")
            found.modules.setdefault(_path(match), {})[role] = name
        else:
            found.unclaimed.append(name)
    modules = list(_modules(found, config))
    is_dora = any("magnitude" in module.tensors for module in modules)
    return found.spec(config, "lora", modules, ["torchtune", *(["dora"] if is_dora else [])])


def _path(match: re.Match[str]) -> str:
    return "lm_head" if match["head"] else f"model.layers.{match['layer']}.{_NAMES[match['inside']]}"


def _modules(tensors: ForeignTensors, config: AdapterConfig) -> Iterator[ModuleSpec]:
    scale = config.number("lora_alpha", 8) / config.rank()
    for path, roles in tensors.modules.items():
        down, up = (tensors.shapes(path).get(role, ()) for role in ("A", "B"))
        if len(down) == len(up) == 2 and down[0] == up[1]:
            yield tensors.module(path, (down[0], down[1], up[0]), scale)
        else:
            tensors.unclaimed.extend(roles.values())


LAYOUT = AdapterLayout(lambda data, header, read: parse_config(data), describe)
