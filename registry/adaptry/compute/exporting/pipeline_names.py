"""Translates names of a pipeline's modules between diffusers and kohya's sd-scripts.

kohya writes `_` for every `.`, so the original names can be recovered only from the base's names. It always
writes CLIP's `text_model`, which newer versions of transformers dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry.core.errors import CheckFailed, Unsupported

_KOHYA = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}


def kohya_name(path: str, parts: Iterable[str]) -> str:
    """The name of a module in kohya's file, for a pipeline with these parts. Raises `Unsupported` for a part
    other than a UNet or a CLIP text encoder: kohya names the modules of other parts like the original model's
    code.
    """
    part, _, inside = path.partition(".")
    if part not in _KOHYA:
        raise Unsupported(
            f"kohya's names for the modules of a {part} differ from diffusers', and cannot be"
            " written: export it with --format diffusers"
        )
    has_two = "text_encoder_2" in parts
    prefix = _KOHYA[part][-1] if has_two else _KOHYA[part][0]
    return _flat(prefix, part, inside)


def diffusers_names(names: Iterable[str], base: Iterable[str], label: str) -> Mapping[str, str]:
    """Diffusers' name for each of kohya's `names`, from the names of the base's tensors. Raises `CheckFailed`
    for the first name that the base does not have.
    """
    known = {}
    for tensor in base:
        part, _, inside = tensor.rpartition(".")[0].partition(".")
        for prefix in _KOHYA.get(part, ()):
            known[_flat(prefix, part, inside)] = f"{part}.{inside}"
    found = {}
    for name in names:
        if name not in known:
            raise CheckFailed(
                f"{label}: the base has no module for kohya's name {name}; is this its pipeline, and does the"
                " file use diffusers' names for blocks (SDXL's original names cannot be recovered)?"
            )
        found[name] = known[name]
    return found


def _flat(prefix: str, part: str, inside: str) -> str:
    if part != "unet":
        inside = f"text_model.{inside.removeprefix('text_model.')}"
    return f"{prefix}_{inside.replace('.', '_')}"
