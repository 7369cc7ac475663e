"""Converts kohya's and LyCORIS' adapters for one part of a pipeline to PEFT's layout, with the base's names.

`lora_unet_down_blocks_0_…` has `_` for every `.`, so a module can be identified only by flattening the base's
names. The scale is alpha / rank, as sd-scripts and LyCORIS compute it for each module. A LoHa and a LoKr keep
their tensors; `lokr_config` derives how a LoKr divides weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.bases.original_unet import original_names
from adaptry.compute.foreign_layouts.lokr_config import lokr_config
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput, PeftAdapter, PeftModule, RenamedTensor
from adaptry.compute.foreign_layouts.pipeline_part import clip_names, left_out, placed_part
from adaptry.compute.lazy_adapters.lazy_adapter import Json
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
_LYCORIS = {
    "loha": {f"hada_{role}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    "lokr": {f"lokr_{role}" for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}
_ROLES: Mapping[str, Mapping[str, str]] = {
    "lora": {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"},
    **{method: {role: role for role in roles} for method, roles in _LYCORIS.items()},
}
METHODS = frozenset(_ROLES)


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftAdapter:
    """The description of the part's adapter in PEFT's terms. Raises `CheckFailed` without a base, or if the
    base is not the chosen part, and `Unsupported` for anything but factors and alphas.
    """
    if base is None:
        raise CheckFailed(
            f"{entry.label} has kohya's flat names ({entry.adapter.spec.modules[0].path}), which can be"
            " resolved only with the base's names: pass the folder of its part, such as --base"
            " ./PIPELINE/unet"
        )
    method = entry.adapter.spec.method
    roles = _ROLES[method]
    prefixes: dict[str, str] = {}
    parts: dict[str, list[ModuleSpec]] = {}
    for module in entry.adapter.spec.modules:
        _refuse(module, roles, entry.label)
        prefix = _PREFIX.match(module.path)
        assert prefix is not None  # the layout recognises modules by this tensor
        name = _PARTS.get(prefix[0], prefix[0])
        prefixes[name] = prefix[0]
        parts.setdefault(name, []).append(module)
    placed = placed_part(parts, base, lambda name, paths: _spell(prefixes[name], paths), part, entry.label)
    own = parts[placed.part]
    modules = tuple(_renamed(module, placed.paths[module.path], roles) for module in own)
    fields: Json = {}
    if method != "lora":
        fields["use_effective_conv2d"] = any(
            role.endswith(("_t1", "_t2")) for module in own for role in module.tensors
        )
    if method == "lokr":
        weights = {module.path: placed.shapes[placed.paths[module.path]] for module in own}
        found = lokr_config(entry, own, weights)
        modules = tuple(
            replace(each, rank=found.ranks[module.path]) for each, module in zip(modules, own, strict=True)
        )
        fields |= found.fields
    notes = left_out(parts, placed.part, entry.label)
    return PeftAdapter(modules, fields, notes, placed.model, method)


def _spell(prefix: str, paths: Sequence[str]) -> Iterable[tuple[str, str]]:
    """The possible names: sd-scripts always writes CLIP's `text_model`, which newer versions of transformers
    dropped, and it writes a UNet's modules under diffusers' names (SD 1.5) or the original ones (SDXL).
    """
    named = [(path, name) for path in paths for name in _names(prefix, path)]
    for path, name in (*named, *(original_names(paths) if prefix == "lora_unet" else ())):
        yield f"{prefix}_{name.replace('.', '_')}", path


def _names(prefix: str, path: str) -> Iterable[str]:
    return clip_names(path) if prefix.startswith("lora_te") else (path,)


def _renamed(module: ModuleSpec, path: str, roles: Mapping[str, str]) -> PeftModule:
    tensors = [RenamedTensor(roles[role], name) for role, name in module.tensors.items() if role in roles]
    return PeftModule(path, module.rank, module.scale, tuple(tensors))


def _refuse(module: ModuleSpec, roles: Mapping[str, str], label: str) -> None:
    odd = sorted(module.tensors.keys() - roles.keys() - {"alpha"})
    if odd:
        raise Unsupported(
            f"{label}: {module.path} has {odd[0]} in addition to its factors, which PEFT reads differently"
            " from"
            " sd-scripts and LyCORIS: merge it with the tool that trained it"
        )
