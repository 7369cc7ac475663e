"""Converts diffusers' LoRA for one part of a pipeline to PEFT's layout: drops the part's name, keeps the
scales.

A module's scale is the one that diffusers uses: from the file's metadata, its alphas, or 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput, PeftAdapter, PeftModule, RenamedTensor
from adaptry.compute.foreign_layouts.pipeline_part import PlacedPart, clip_names, left_out, placed_part
from adaptry.core.errors import CheckFailed, Unsupported

_ROLES = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "B_bias": "lora_B.bias",
    "magnitude": "lora_magnitude_vector",
}


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftAdapter:
    """The description of the part's LoRA in PEFT's terms. Raises `CheckFailed` if the part is not determined,
    or the base is not that part, and `Unsupported` if PEFT behaves differently from diffusers.
    """
    parts: dict[str, list[ModuleSpec]] = {}
    for module in entry.adapter.spec.modules:
        parts.setdefault(module.path.partition(".")[0], []).append(module)
    if base is not None:
        placed = placed_part(parts, base, _spell, part, entry.label)
    else:
        placed = _part_as_named(parts, part, entry.label)
    modules = parts[placed.part]
    _refuse_mixed(modules, placed.part, entry.label)
    roles = {role for module in modules for role in module.tensors}
    return PeftAdapter(
        tuple(_renamed(module, placed.paths[module.path]) for module in modules),
        {"use_dora": "magnitude" in roles, "lora_bias": "B_bias" in roles},
        left_out(parts, placed.part, entry.label),
        placed.model,
    )


def _spell(part: str, paths: Sequence[str]) -> Iterable[tuple[str, str]]:
    """The possible names: the file may have CLIP's `text_model`, which transformers dropped."""
    for path in paths:
        for name in clip_names(path) if part.startswith("text_encoder") else (path,):
            yield f"{part}.{name}", path


def _part_as_named(parts: dict[str, list[ModuleSpec]], part: str | None, label: str) -> PlacedPart:
    """The part without a base: its names are used unchanged. Those of a text encoder are ambiguous."""
    if part is None and len(parts) > 1:
        raise CheckFailed(
            f"{label} is for {', '.join(parts)} of a pipeline, each a separate model, but PEFT's layout is"
            " for one model: choose one with --base ./PIPELINE/PART, or --part"
        )
    chosen = part or next(iter(parts))
    if chosen not in parts:
        raise CheckFailed(f"{label} has no part {chosen[:40]}, only {', '.join(parts)}")
    if chosen.startswith("text_encoder"):
        raise CheckFailed(
            f"{label} is for a {chosen}, whose modules have other names in newer versions of transformers:"
            " pass its folder with --base"
        )
    inside = len(chosen) + 1
    return PlacedPart(chosen, {module.path: module.path[inside:] for module in parts[chosen]})


def _renamed(module: ModuleSpec, path: str) -> PeftModule:
    tensors = [RenamedTensor(_ROLES[role], name) for role, name in module.tensors.items() if role != "alpha"]
    return PeftModule(path, module.rank, module.scale, tuple(tensors))


def _refuse_mixed(modules: list[ModuleSpec], part: str, label: str) -> None:
    """Raises `Unsupported` for mixtures: in PEFT, all modules have DoRA or biases, or none; and diffusers
    drops a text encoder's magnitudes.
    """
    for role, what in (("magnitude", "magnitudes (DoRA)"), ("B_bias", "a bias of lora_B")):
        having = [module.path for module in modules if role in module.tensors]
        if having and len(having) < len(modules):
            raise Unsupported(
                f"{label}: {len(having)} of {len(modules)} modules have {what}, but in PEFT all"
                " modules have them or none: load it with pipeline.load_lora_weights(DIR) of diffusers,"
                " which can"
                " fuse_lora()"
            )
        if having and role == "magnitude" and part.startswith("text_encoder"):
            raise Unsupported(
                f"{label}: diffusers drops a text encoder's magnitudes, so the adapter that it loads is not"
                " the"
                " trained DoRA: save it with PEFT from the trained model"
            )
