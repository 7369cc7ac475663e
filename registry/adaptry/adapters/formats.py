"""The files of an adapter, by the tool that wrote it. Only names on these lists are ever stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from adaptry.adapters.images import is_image
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

METHODS_OF_OTHER_TOOLS = ("bottleneck", "reft", "union")
"""AdapterHub's methods that PEFT does not have."""
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterFormat:
    """The files of an adapter as one tool writes them.

    `config` is empty if the weights' file contains everything. `extra_files` are the tool's other files that
    belong to the adapter. `pickle` is the name under which it writes the weights as a pickle, and `remedy` is
    the advice about such a file. `save_hint` describes how the tool saves an adapter, and `usage_hint` how it
    uses or merges adapters that we cannot merge. `names_modules`: whether its tensors have names of a
    checkpoint's modules, and not of a pipeline's parts.
    """

    name: str
    tool: str
    weights: str
    config: str = CONFIG
    extra_files: frozenset[str] = frozenset()
    pickle: str = ""
    remedy: str = ""
    save_hint: str = ""
    usage_hint: str = ""
    names_modules: bool = True

    def includes(self, name: str) -> bool:
        """Whether a file with this name may be part of a stored adapter."""
        own = {self.weights, *self.extra_files, *([self.config] if self.config else [])}
        return name in own or bool(_COMMON_FILES.fullmatch(name)) or is_image(name)


_COMMON_FILES = lazy_pattern(
    r"README\.md|(?:LICENSE|NOTICE)(?:\.(?:md|txt))?"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|chat_template\.(?:jinja|json)|generation_config\.json"
)


def _conversion(files: Mapping[str, str]) -> str:
    """The command that converts pickles to safetensors. It copies tensors, since some share memory."""
    return (
        'convert it once, in that folder: python -c "import os, torch, safetensors.torch as s; '
        "[s.save_file({k: v.clone().contiguous() for k, v in torch.load(a, weights_only=True).items()}, b) "
        f'for a, b in {files}.items() if os.path.exists(a)]"'
    )


PEFT = AdapterFormat(
    "peft",
    "PEFT",
    WEIGHTS,
    pickle="adapter_model.bin",
    remedy=_conversion({"adapter_model.bin": WEIGHTS}),
    save_hint="model.save_pretrained(DIR)",
)
ADAPTERHUB = AdapterFormat(
    "adapterhub",
    "AdapterHub's adapters library",
    "adapter.safetensors",
    extra_files=frozenset({"head_config.json", "model_head.safetensors"}),
    pickle="pytorch_adapter.bin",
    remedy=(
        "save it again: model.save_adapter(DIR, NAME, use_safetensors=True); if that refuses,"
        " as it does for a prefix, "
    )
    + _conversion(
        {"pytorch_adapter.bin": "adapter.safetensors", "pytorch_model_head.bin": "model_head.safetensors"}
    ),
    save_hint="model.save_adapter(DIR, NAME, use_safetensors=True)",
    usage_hint=(
        "load it with model.load_adapter(DIR, use_safetensors=True); its merge_adapter(NAME) merges"
        " LoRA and IA3; bottlenecks and its other methods cannot be merged into a weight"
    ),
)
MLX = AdapterFormat(
    "mlx",
    "MLX",
    "adapters.safetensors",
    save_hint="mlx_lm.lora --train --adapter-path DIR writes adapters.safetensors",
    usage_hint="merge it with mlx_lm.fuse",
)
DIFFUSERS = AdapterFormat(
    "diffusers",
    "diffusers",
    "pytorch_lora_weights.safetensors",
    config="",
    pickle="pytorch_lora_weights.bin",
    remedy="save it again with save_lora_weights(DIR), whose default is safetensors",
    save_hint="pipeline.save_lora_weights(DIR, …), with the adapter metadata",
    usage_hint="load it with pipeline.load_lora_weights(DIR), which can fuse_lora()",
    names_modules=False,
)
KOHYA = AdapterFormat(
    "kohya",
    "kohya's sd-scripts",
    "*.safetensors",  # under a name that the user chooses
    config="",
    save_hint="the tool that trained it writes one complete .safetensors file",
    usage_hint="load it with pipeline.load_lora_weights(DIR) of diffusers, which can fuse_lora()",
    names_modules=False,
)
TORCHTUNE = AdapterFormat(
    "torchtune",
    "torchtune",
    WEIGHTS,  # its keys distinguish it from PEFT's
    pickle="adapter_model.pt",
    remedy=_conversion({"adapter_model.pt": WEIGHTS}),
    save_hint="its Hugging Face checkpointer writes adapter_model.safetensors, with PEFT's names",
    usage_hint="merge it with torchtune, whose checkpointer writes the merged model",
)
FORMATS: Mapping[str, AdapterFormat] = {
    format.name: format for format in (PEFT, ADAPTERHUB, MLX, DIFFUSERS, KOHYA, TORCHTUNE)
}

_NAMED = frozenset(format.weights for format in FORMATS.values())
WHOLE_MODEL = lazy_pattern(r"(?:model|pytorch_model|diffusion_pytorch_model)\b.*\.safetensors")


def is_weights(path: str) -> bool:
    """Whether a file with this name, in any folder, can be the weights of an adapter of some tool."""
    name = path.rpartition("/")[2]
    return name.endswith(".safetensors") and not WHOLE_MODEL.fullmatch(name)


def defines_adapter(path: str) -> bool:
    """Whether a file with this name, in any folder, can be the weights, the config or a further file of some
    tool's adapter. A README or a tokenizer cannot.
    """
    name = path.rpartition("/")[2]
    return is_weights(name) or any(
        name == format.config or name in format.extra_files for format in FORMATS.values()
    )


def is_adapter_file(path: str) -> bool:
    """Whether a file with this name, in any folder, can be part of an adapter of some tool."""
    name = path.rpartition("/")[2]
    return is_weights(name) or any(format.includes(name) for format in FORMATS.values())


def detect_format(names: Iterable[str]) -> AdapterFormat | None:
    """The format of an adapter with these files, recognised by the name of its weights; None if no format
    matches. If two formats use the same name, the keys in the file decide (`layouts.format_by_keys`). Files
    in subfolders, such as training checkpoints, are not part of the adapter.
    """
    present = {name for name in names if "/" not in name}
    for format in FORMATS.values():
        if format.weights in present and format.config in (present | {""}):
            return format
    single = [name for name in present if is_weights(name)]
    if len(single) == 1 and CONFIG not in present and single[0] not in _NAMED:
        return replace(KOHYA, weights=single[0])
    return None
