"""Whether a LoRA of diffusers or kohya fits a pipeline: its modules are there, and as wide as its factors.

kohya's flat names are looked up among the pipeline's, made as flat; those of the original checkpoints
(`input_blocks`, `double_blocks`) are of a model that is cut otherwise, and are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord, TensorShape
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
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
    """The findings of an adapter against the record of a pipeline, or another base, which it cannot fit."""
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
        reason = f"{shorten_names(original)}: names of the original checkpoint, where diffusers has others"
        yield build_finding("module_renamed", reason, original)
    if wrong:
        reasons = [f"{shorten_names(fold_layer_numbers(paths))} {reason}" for reason, paths in wrong.items()]
        paths = [path for paths in wrong.values() for path in paths]
        yield build_finding("shape_mismatch", shorten_names(reasons), paths)


def _is_of_another(module: ModuleSpec, adapter: Adapter, weights: _Shapes, base: BaseRecord) -> bool:
    """Where the base is one part of a pipeline: whether the module is of a part of which it has none."""
    if _is_pipeline(base):
        return False
    prefixes = {_prefix(each.path) for each in adapter.spec.modules if each.path in weights}
    return bool(prefixes) and _prefix(module.path) not in prefixes


def _prefix(path: str) -> str:
    """The part, as the tool names it: `unet`, `lora_te1`."""
    return "_".join(path.split("_")[:2]) if path.startswith("lora_") else re.split(r"[._]", path)[0]


def _is_pipeline(base: BaseRecord) -> bool:
    return str(base.facts.get("model_type")).endswith("Pipeline")


def _tensors(base: BaseRecord) -> Iterator[tuple[str, TensorShape]]:
    """With the part in front, which of a part alone may be any."""
    if _is_pipeline(base):
        yield from base.tensors.items()
    else:
        yield from ((f"{part}.{name}", tensor) for part in _FLAT for name, tensor in base.tensors.items())


def _names(base: BaseRecord) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every name that a tool may give a weight's module: with and without the `text_model` that transformers
    5 left out, and made flat.
    """
    for name, tensor in _tensors(base):
        part, _, weight = name.partition(".")
        if not weight.endswith(".weight") or len(tensor.shape) < 2:
            continue
        inside = weight.removesuffix(".weight").removeprefix("text_model.")
        for path in (inside, f"text_model.{inside}") if part.startswith("text_encoder") else (inside,):
            yield f"{part}.{path}", tensor.shape
            for flat in _FLAT.get(part, ()):
                yield f"{flat}_{path.replace('.', '_')}", tensor.shape


def _misfit(module: ModuleSpec, shape: tuple[int, ...], adapter: Adapter) -> str | None:
    """How a module's factors differ from the weight they change, to end a sentence; None where they fit."""
    if module.fan_in not in (0, shape[1]):  # 0: its tensors do not tell
        return f"wants inputs of {module.fan_in:,} and this base gives {shape[1]:,}"
    if module.fan_out not in (0, shape[0]):
        return f"gives {module.fan_out:,} outputs and this base has {shape[0]:,}"
    down = module.tensors.get("A") or module.tensors.get("lora_down.weight")
    middle = module.tensors.get("lora_mid.weight")
    kernel = adapter.tensors[middle or down].shape[2:] if down else shape[2:]
    if kernel != shape[2:] and {*kernel, *shape[2:]} != {1}:
        return f"has a kernel of {list(kernel)} and this base has {list(shape[2:])}"
    return None
