"""Which files make an adapter, by the tool that wrote it. Only names on these lists are ever stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from adaptry.adapters.images import is_image

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterFormat:
    """The files of an adapter as one tool writes them.

    `config` is empty where all is in the weights' file. `extra_files` are the tool's other files that belong
    to the adapter, `pickle` the name under which it writes the weights unsafely, and `remedy` what to do
    about that. `save_hint`: how it saves an adapter; `usage_hint`: how it uses or merges what we cannot.
    `names_modules`: whether its tensors are named for modules of a checkpoint, rather than for parts of a
    pipeline.
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
        """Whether a file of this name may be part of a stored adapter."""
        own = {self.weights, *self.extra_files, *([self.config] if self.config else [])}
        return name in own or bool(_BESIDE.fullmatch(name)) or is_image(name)


_BESIDE = re.compile(
    r"README\.md|(?:LICENSE|NOTICE)(?:\.(?:md|txt))?"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|chat_template\.(?:jinja|json)|generation_config\.json"
)


def _conversion(files: Mapping[str, str]) -> str:
    """The line that makes files we read of those that run code. Its copies part tensors that share memory."""
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
        "save it again: model.save_adapter(DIR, NAME, use_safetensors=True); where that refuses,"
        " as it does a prefix, "
    )
    + _conversion(
        {"pytorch_adapter.bin": "adapter.safetensors", "pytorch_model_head.bin": "model_head.safetensors"}
    ),
    save_hint="model.save_adapter(DIR, NAME, use_safetensors=True)",
    usage_hint=(
        "load it with model.load_adapter(DIR, use_safetensors=True); its merge_adapter(NAME) takes LoRA and"
        " IA3, and no weight can hold a bottleneck or what else it writes"
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
    "*.safetensors",  # under a name of the user's choice
    config="",
    save_hint="the tool that trained it writes a whole .safetensors file",
    usage_hint="load it with pipeline.load_lora_weights(DIR) of diffusers, which can fuse_lora()",
    names_modules=False,
)
FORMATS: Mapping[str, AdapterFormat] = {
    format.name: format for format in (PEFT, ADAPTERHUB, MLX, DIFFUSERS, KOHYA)
}

_NAMED = frozenset(format.weights for format in FORMATS.values())
WHOLE_MODEL = re.compile(r"(?:model|pytorch_model|diffusion_pytorch_model)\b.*\.safetensors")


def is_adapter_file(path: str) -> bool:
    """Whether a file of this name, in whatever folder, can be part of an adapter that some tool wrote."""
    name = path.rpartition("/")[2]
    is_kohyas = name.endswith(".safetensors") and not WHOLE_MODEL.fullmatch(name)
    return is_kohyas or any(format.includes(name) for format in FORMATS.values())


def detect_format(names: Iterable[str]) -> AdapterFormat | None:
    """The format of an adapter of these files, told by the name of its weights; None where it is none.

    What lies in folders beside it, such as the checkpoints of a training, is no part of it.
    """
    present = {name for name in names if "/" not in name}
    for format in FORMATS.values():
        if format.weights in present and format.config in (present | {""}):
            return format
    single = [name for name in present if name.endswith(".safetensors") and not WHOLE_MODEL.fullmatch(name)]
    if len(single) == 1 and CONFIG not in present and single[0] not in _NAMED:
        return replace(KOHYA, weights=single[0])
    return None
