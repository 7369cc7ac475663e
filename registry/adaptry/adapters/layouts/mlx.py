"""mlx-lm's LoRA: transposed factors, and a `scale` that is applied directly, without dividing by the rank.

`lora_a` is [in, rank] and `lora_b` [rank, out]; all experts of a layer are in one module, with `lora_a`
[experts, rank, in] and `lora_b` [experts, out, rank] (`tuner/lora.py`; before 0.2x `lora_a` was
[experts·rank, in]).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from adaptry.adapters.config import AdapterConfig, parse_config
from adaptry.adapters.header import ReadAt, SafetensorsHeader
from adaptry.adapters.layouts.layout import AdapterLayout, ForeignTensors
from adaptry.adapters.spec import ModuleKind, ModuleSpec, Spec
from adaptry.adapters.tensor_names import is_input_embedding
from adaptry.core.errors import InvalidConfig

_KEY = re.compile(r"(?P<path>.+)\.(?P<role>lora_a|lora_b|m)")
_SCALE = 20.0  # mlx-lm's default


def config(data: bytes, header: SafetensorsHeader, read: ReadAt) -> AdapterConfig:
    """The config as written, with PEFT's fields for rank, scale and base. Raises `InvalidConfig`, including
    for full fine-tunes.
    """
    fields = dict(parse_config(data).fields)
    kind = fields.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora") or not isinstance(fields.get("lora_parameters"), dict):
        raise InvalidConfig(
            f"adapter_config.json is not a LoRA of mlx-lm (fine_tune_type {str(kind)[:40]!a});"
            " full weights are a model, not an adapter"
        )
    parameters = AdapterConfig(fields["lora_parameters"])
    rank, scale = parameters.rank("rank"), parameters.number("scale", _SCALE)
    in_pefts_words = {"r": rank, "lora_alpha": rank * scale, "base_model_name_or_path": fields.get("model")}
    return AdapterConfig({**fields, **in_pefts_words})


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """The modules by their names in MLX's model, which are nearly always those of transformers."""
    scale = AdapterConfig(config.fields["lora_parameters"]).number("scale", _SCALE)
    found = ForeignTensors(header.tensors)
    for name in header.tensors:
        if match := _KEY.fullmatch(name):
            found.modules.setdefault(match["path"], {})[match["role"]] = name
        else:
            found.unclaimed.append(name)
    is_dora = any("m" in roles for roles in found.modules.values())
    traits = ["mlx", *(["dora"] if is_dora else [])]
    return found.spec(config, "lora", _modules(found, scale), traits)


def _modules(tensors: ForeignTensors, scale: float) -> Iterator[ModuleSpec]:
    for path, roles in tensors.modules.items():
        down, up = (tensors.shapes(path).get(role, ()) for role in ("lora_a", "lora_b"))
        if len(down) == 2 and len(up) == 2 and down[1] == up[0]:
            kind: ModuleKind = "embedding" if is_input_embedding(path) else "linear"
            yield tensors.module(path, (down[1], down[0], up[1]), scale, kind)
        elif len(up) == 3 and down[:-1] in ((up[0], up[2]), (up[0] * up[2],)):
            yield tensors.module(path, (up[0] * up[2], down[-1], up[1]), scale, "parameter")
        else:
            tensors.unclaimed.extend(roles.values())


LAYOUT = AdapterLayout(config, describe)
