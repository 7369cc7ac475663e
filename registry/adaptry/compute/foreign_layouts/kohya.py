"""kohya's LoRA of one part of a pipeline in PEFT's layout: flat names told back by the base, an alpha each.

`lora_unet_down_blocks_0_…` has `_` for every `.`, so only the base's own names, made as flat, say which
module is meant. The scale is alpha over rank, as sd-scripts computes it for each module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.original_unet import original_names
from adaptry.compute.foreign_layouts.peft_lora import ForeignInput, PeftLora, PeftModule, RenamedTensor
from adaptry.compute.foreign_layouts.pipeline_part import clip_names, left_out, placed_part
from adaptry.core.errors import CheckFailed, Unsupported

_PREFIX = re.compile(r"lora_(?:unet|te\d?|transformer|prior_unet)(?=_)|lycoris(?=_)")
_PARTS = {
    "lora_unet": "unet",
    "lora_te": "text_encoder",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
    "lora_te3": "text_encoder_3",
    "lora_transformer": "transformer",
}
_ROLES = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftLora:
    """Raises `CheckFailed` without a base, or where it is not the part that is meant; `Unsupported` for
    what is more than factors and alphas.
    """
    if base is None:
        raise CheckFailed(
            f"{entry.label} has kohya's flat names ({entry.adapter.spec.modules[0].path}), and only the"
            " base's own names tell them apart: say --base ./PIPELINE/unet, the folder of the part that is"
            " meant"
        )
    prefixes: dict[str, str] = {}
    parts: dict[str, list[ModuleSpec]] = {}
    for module in entry.adapter.spec.modules:
        _refuse(module, entry.label)
        prefix = _PREFIX.match(module.path)
        assert prefix is not None  # it is how the layout knows a module
        name = _PARTS.get(prefix[0], prefix[0])
        prefixes[name] = prefix[0]
        parts.setdefault(name, []).append(module)
    placed = placed_part(parts, base, lambda name, paths: _spell(prefixes[name], paths), part, entry.label)
    modules = tuple(_renamed(module, placed.paths[module.path]) for module in parts[placed.part])
    return PeftLora(modules, {}, left_out(parts, placed.part, entry.label), placed.model)


def _spell(prefix: str, paths: Sequence[str]) -> Iterable[tuple[str, str]]:
    """sd-scripts always writes CLIP's `text_model`, which newer versions of transformers leave out, and has a
    UNet's modules under diffusers' names (SD 1.5) or the original ones (SDXL).
    """
    named = [(path, name) for path in paths for name in _names(prefix, path)]
    for path, name in (*named, *(original_names(paths) if prefix == "lora_unet" else ())):
        yield f"{prefix}_{name.replace('.', '_')}", path


def _names(prefix: str, path: str) -> Iterable[str]:
    return clip_names(path) if prefix.startswith("lora_te") else (path,)


def _renamed(module: ModuleSpec, path: str) -> PeftModule:
    tensors = [RenamedTensor(_ROLES[role], name) for role, name in module.tensors.items() if role in _ROLES]
    return PeftModule(path, module.rank, module.scale, tuple(tensors))


def _refuse(module: ModuleSpec, label: str) -> None:
    odd = sorted(module.tensors.keys() - _ROLES.keys() - {"alpha"})
    if odd:
        raise Unsupported(
            f"{label}: {module.path} has {odd[0]} beside its factors, which PEFT does not read as sd-scripts"
            " and LyCORIS do: merge it with the tool that trained it"
        )
