"""Whether a LoRA of diffusers or kohya fits a pipeline: the pipeline has its modules, with matching widths.

kohya's flat names are looked up among the pipeline's flattened names, including those of the original UNet
(`input_blocks`), with which SDXL LoRAs are trained. Names of other original checkpoints (`double_blocks`)
belong to models that are divided differently, and are not looked up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord, TensorShape
from adaptry.adapters.spec import ModuleSpec
from adaptry.bases.original_unet import original_names
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.core.report import Finding

_FLAT = {
    "unet": ("lora_unet", "lycoris"),
    "text_encoder": ("lora_te", "lora_te1"),
    "text_encoder_2": ("lora_te2",),
    "text_encoder_3": ("lora_te3",),
    "transformer": ("lora_transformer", "lora_unet", "lycoris"),
}
_Shapes = Mapping[str, tuple[int, ...]]
_ORIGINAL = re.compile(
    r"diffusion_model\..+|(?:lora_unet|lycoris)_"
    r"(?:input_blocks|middle_block|output_blocks|time_embed|label_emb|out_\d|double_blocks|single_blocks|"
    r"joint_blocks|img_in|txt_in|final_layer).*"
)


def check_pipeline_fit(adapter: Adapter, base: BaseRecord) -> Iterator[Finding]:
    """The findings about an adapter on a pipeline's record; any other base does not fit."""
    weights = dict(_names(base))
    modules = [
        module for module in adapter.spec.modules if not _is_of_another(module, adapter, weights, base)
    ]
    missing: list[str] = []
    original: list[str] = []
    wrong: dict[str, list[str]] = {}
    for module in modules:
        shape = weights.get(module.path)
        if shape is None:
            (original if _ORIGINAL.fullmatch(module.path) else missing).append(module.path)
        elif reason := _misfit(module, shape, adapter):
            wrong.setdefault(reason, []).append(module.path)
    if missing:
        known = format_count(len(modules), "module")
        model = base.facts.get("model_type")
        reason = (
            f"{len(missing):,} of {known} are not in the base ({model}):"
            f" {shorten_names(fold_layer_numbers(missing))}"
        )
        yield build_finding("module_missing", reason, missing)
    if original:
        reason = f"{shorten_names(original)}: names of the original checkpoint, which differ in diffusers"
        yield build_finding("module_renamed", reason, original)
    if wrong:
        reasons = [f"{shorten_names(fold_layer_numbers(paths))} {reason}" for reason, paths in wrong.items()]
        paths = [path for paths in wrong.values() for path in paths]
        yield build_finding("shape_mismatch", shorten_names(reasons), paths)


def _is_of_another(module: ModuleSpec, adapter: Adapter, weights: _Shapes, base: BaseRecord) -> bool:
    """Whether the base is only one part of a pipeline, and the module belongs to another part."""
    if _is_pipeline(base):
        return False
    prefixes = {_prefix(each.path) for each in adapter.spec.modules if each.path in weights}
    return bool(prefixes) and _prefix(module.path) not in prefixes


def _prefix(path: str) -> str:
    """The tool's name for the part: `unet`, `lora_te1`."""
    return "_".join(path.split("_")[:2]) if path.startswith("lora_") else re.split(r"[._]", path)[0]


def _is_pipeline(base: BaseRecord) -> bool:
    return str(base.facts.get("model_type")).endswith("Pipeline")


def _tensors(base: BaseRecord) -> Iterator[tuple[str, TensorShape]]:
    """The base's tensors with the part's name in front; a base that is a single part may be any part."""
    if _is_pipeline(base):
        yield from base.tensors.items()
    else:
        yield from ((f"{part}.{name}", tensor) for part in _FLAT for name, tensor in base.tensors.items())


def _names(base: BaseRecord) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every name that a tool may give a weight's module: with and without `text_model`, which transformers 5
    dropped; for a UNet also the original name; and each of these flattened.
    """
    unet: dict[str, tuple[int, ...]] = {}
    for name, tensor in _tensors(base):
        part, _, weight = name.partition(".")
        if not weight.endswith(".weight") or len(tensor.shape) < 2:
            continue
        inside = weight.removesuffix(".weight").removeprefix("text_model.")
        for path in (inside, f"text_model.{inside}") if part.startswith("text_encoder") else (inside,):
            yield f"{part}.{path}", tensor.shape
            for flat in _FLAT.get(part, ()):
                yield f"{flat}_{path.replace('.', '_')}", tensor.shape
        if part == "unet":
            unet[inside] = tensor.shape
    for path, original in original_names(unet):
        for flat in _FLAT["unet"]:
            yield f"{flat}_{original.replace('.', '_')}", unet[path]


def _misfit(module: ModuleSpec, shape: tuple[int, ...], adapter: Adapter) -> str | None:
    """The difference between a module's factors and the weight that they change, as the end of a sentence;
    None if they fit.
    """
    inputs = math.prod(shape[1:]) if module.kind == "flat" else shape[1]
    if module.fan_in not in (0, inputs):  # 0: its tensors do not determine it
        return f"takes {module.fan_in:,} inputs, but this base's weight has {inputs:,}"
    if module.fan_out not in (0, shape[0]):
        return f"gives {module.fan_out:,} outputs, but this base's weight has {shape[0]:,}"
    down = module.tensors.get("A") or module.tensors.get("lora_down.weight")
    middle = module.tensors.get("lora_mid.weight")
    kernel = adapter.tensors[middle or down].shape[2:] if down else shape[2:]
    if kernel != shape[2:] and {*kernel, *shape[2:]} != {1}:
        return f"has a kernel of {list(kernel)}, but this base's is {list(shape[2:])}"
    return None
