"""diffusers' LoRA weights: one file, whose keys begin with the name of the pipeline's part that they change.

Alpha is in the metadata (`lora_adapter_metadata`, since diffusers 0.34) or in separate tensors, which the
loaders of transformers read and those of UNets refuse. A file without either is loaded with alpha = rank,
whatever it was trained with. Parsed like diffusers 0.42 (`loaders/peft.py`, `utils/peft_utils.py`,
`utils/state_dict_utils.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from adaptry.adapters.config import LIMITS, AdapterConfig
from adaptry.adapters.config_schema import check_lora
from adaptry.adapters.header import ReadAt, SafetensorsHeader
from adaptry.adapters.layouts.layout import AdapterLayout, ForeignTensors
from adaptry.adapters.layouts.scalars import read_scalar
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.adapters.spec import ModuleKind, ModuleSpec, Spec
from adaptry.core import strictjson
from adaptry.core.errors import Invalid, InvalidConfig

_METADATA = "lora_adapter_metadata"
_PART = r"(?:unet|transformer(?:_2|_ref)?|text_encoder(?:_[23])?|connectors|text_conditioner|diffusion_model)"
# PEFT's names since 0.2x; before that `lora.down`, and `to_q_lora.down` in attention processors. ComfyUI's
# (`diffusion_model.…`) may have `lora_down`, which the loaders of Wan, Qwen-Image and Z-Image translate.
_KEY = re.compile(
    rf"(?P<path>(?:(?P<original>diffusion_model)|{_PART})\..+?)"
    r"(?:\.lora_(?P<new>[AB])\.weight"
    r"|[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight"
    r"|\.(?P<bias>lora_B\.bias)|\.(?P<alpha>alpha)|\.lora_magnitude_vector(?P<magnitude>\.weight)?"
    r"|(?(original)\.lora_(?P<native>down|up)\.weight|(?!)))"
)


def is_key(name: str) -> bool:
    """Whether a tensor has a name of diffusers' form."""
    return _KEY.fullmatch(name) is not None


def config(data: bytes, header: SafetensorsHeader, read: ReadAt) -> AdapterConfig:
    """The config, with `metadata` (each part's LoraConfig under the part's name, as in `unet.r`; None if the
    file has none) and `alphas` (those stored as tensors, by module). Raises `InvalidConfig`,
    `InvalidWeights`.
    """
    alphas = {
        _path(match["path"]): read_scalar(name, info, read)
        for name, info in header.tensors.items()
        if (match := _KEY.fullmatch(name)) and match["alpha"]
    }
    written = header.metadata.get(_METADATA)
    config = PipelineConfig({"alphas": alphas, "metadata": None if written is None else _parsed(written)})
    for part in {key.partition(".")[0] for key in config.fields["metadata"] or ()}:
        try:
            check_lora(part_config(config, part).fields)
            scale_of(part_config(config, part), "")
        except InvalidConfig as error:
            where = f"the file's {_METADATA}, of {part}"
            raise InvalidConfig(error.message.replace("adapter_config.json", where)) from None
    return config


class PipelineConfig(AdapterConfig):
    """The settings of the LoRAs of a pipeline's parts, grouped by part."""

    @cached_property
    def parts(self) -> Mapping[str, AdapterConfig]:
        fields: dict[str, dict[str, Any]] = {}
        for key, value in (self.fields["metadata"] or {}).items():
            part, _, inside = key.partition(".")
            fields.setdefault(part, {})[inside] = value
        return {part: AdapterConfig(own) for part, own in fields.items()}

    @cached_property
    def usual_alphas(self) -> Mapping[str, float]:
        """The most frequent alpha of each part that has alphas."""
        found: dict[str, Counter[float]] = {}
        for path, alpha in self.fields["alphas"].items():
            found.setdefault(path.partition(".")[0], Counter())[alpha] += 1
        return {part: alphas.most_common(1)[0][0] for part, alphas in found.items()}


def part_config(config: AdapterConfig, part: str) -> AdapterConfig:
    """The LoraConfig of one part of the pipeline, from the metadata, or PEFT's defaults."""
    assert isinstance(config, PipelineConfig)
    return config.parts.get(part) or AdapterConfig({})


def declared_rank(config: AdapterConfig, path: str) -> int:
    """The rank of a module according to the metadata."""
    part, _, inside = path.partition(".")
    return scale_of(part_config(config, part), inside)[2]


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """The modules by their names in the pipeline, beginning with its part."""
    found = ForeignTensors(header.tensors)
    for name in header.tensors:
        match = _KEY.fullmatch(name)
        if match is None:
            found.unclaimed.append(name)
            continue
        role = {"A": "A", "B": "B", "down": "A", "up": "B"}.get(
            match["new"] or match["old"] or match["native"] or ""
        )
        role = role or ("alpha" if match["alpha"] else "B_bias" if match["bias"] else "magnitude")
        if found.modules.setdefault(_path(match["path"]), {}).setdefault(role, name) != name:
            found.unclaimed.append(name)  # the same factor under two spellings: a loader would keep only one
    for path in found.modules:
        part, _, inside = path.partition(".")
        part_config(config, part).patterns.prepare([inside])
    modules = list(_modules(found, config))
    return found.spec(config, "lora", modules, _traits(modules, config))


def _traits(modules: list[ModuleSpec], config: AdapterConfig) -> Iterator[str]:
    yield "diffusers"
    if config.fields["metadata"] is None and not config.fields["alphas"]:
        yield "alpha_unknown"
    if any("magnitude" in module.tensors for module in modules):
        yield "dora"


def _parsed(written: str) -> Mapping[str, Any]:
    try:
        fields = strictjson.loads(written.encode(), LIMITS, f"the file's {_METADATA}")
    except Invalid as error:
        raise InvalidConfig(error.message) from None
    if not isinstance(fields, dict):
        raise InvalidConfig(f"the file's {_METADATA} is not a JSON object")
    return fields


def _path(written: str) -> str:
    """A module's current name. Formerly, attention processors owned the factors, and `to_out` was not a
    list.
    """
    path = written.replace(".processor.", ".")
    return f"{path}.0" if written != path and path.endswith(".to_out") else path


def _modules(tensors: ForeignTensors, config: AdapterConfig) -> Iterator[ModuleSpec]:
    for path, roles in tensors.modules.items():
        down, up = (tensors.shapes(path).get(role, ()) for role in ("A", "B"))
        if len(down) < 2 or len(up) < 2 or down[0] != up[1]:
            tensors.unclaimed.extend(roles.values())
            continue
        kind: ModuleKind = "conv" if len(down) > 2 else "linear"
        yield tensors.module(path, (down[0], down[1], up[0]), _scale(path, down[0], config), kind)


def _scale(path: str, rank: int, config: AdapterConfig) -> float:
    """The scale, as in `_create_lora_config`: from the metadata, else from the alphas, else 1. If only some
    modules have an alpha, the others get the most frequent one of their part.
    """
    part, _, inside = path.partition(".")
    if config.fields["metadata"] is not None:
        return scale_of(part_config(config, part), inside)[0]
    assert isinstance(config, PipelineConfig)
    usual = config.usual_alphas.get(part)
    return 1.0 if usual is None else float(config.fields["alphas"].get(path, usual)) / rank


LAYOUT = AdapterLayout(config, describe)
