"""Which files of a folder make an adapter, by the tool that wrote it; which are left out, and why.

Only names on these lists are ever stored, and links only where they are those of a Hugging Face cache. Pickles
and optimizer state are left out with a notice; an adapter that exists only as a pickle is refused with the line that
converts it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adaptry.errors import Invalid, NotFound, Unsupported
from adaptry.manifest import check_path

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Format:
    """The files of an adapter as one tool writes them.

    `config` is empty where all is in the weights' file. `also` are the tool's other files that belong to the adapter,
    `pickle` the name under which it writes the weights unsafely, and `remedy` what to do about that. `instead`: how
    the tool itself uses or merges what we cannot. `names_modules`: whether its tensors are named for modules of a
    checkpoint, rather than for parts of a pipeline.
    """

    name: str
    tool: str
    weights: str
    config: str = CONFIG
    also: frozenset[str] = frozenset()
    pickle: str = ""
    remedy: str = ""
    instead: str = ""
    names_modules: bool = True

    def keeps(self, name: str) -> bool:
        """Whether a file of this name may be part of a stored adapter."""
        own = {self.weights, *self.also, *([self.config] if self.config else [])}
        return name in own or bool(_BESIDE.fullmatch(name))


_BESIDE = re.compile(
    r"README\.md|(?:LICENSE|NOTICE)(?:\.(?:md|txt))?"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|chat_template\.(?:jinja|json)|generation_config\.json"
)
_FROM_BIN = (
    'convert it once, in that folder: python -c "import torch, safetensors.torch as s; '
    "s.save_file({k: v.contiguous() for k, v in torch.load('adapter_model.bin', weights_only=True).items()}, "
    "'adapter_model.safetensors')\""
)
PEFT = Format("peft", "PEFT", WEIGHTS, pickle="adapter_model.bin", remedy=_FROM_BIN)
ADAPTERHUB = Format(
    "adapterhub",
    "AdapterHub's adapters library",
    "adapter.safetensors",
    also=frozenset({"head_config.json", "model_head.safetensors"}),
    pickle="pytorch_adapter.bin",
    remedy="save it again: model.save_adapter(DIR, NAME, use_safetensors=True)",
    instead="load it with model.load_adapter(DIR, use_safetensors=True); its merge_adapter(NAME) takes LoRA and IA3, and "
    "no weight can hold a bottleneck or what else it writes",
)
MLX = Format("mlx", "MLX", "adapters.safetensors", instead="merge it with mlx_lm.fuse")
DIFFUSERS = Format(
    "diffusers",
    "diffusers",
    "pytorch_lora_weights.safetensors",
    config="",
    pickle="pytorch_lora_weights.bin",
    remedy="save it again with save_lora_weights(DIR), whose default is safetensors",
    instead="load it with pipeline.load_lora_weights(DIR), which can fuse_lora()",
    names_modules=False,
)
KOHYA = Format(
    "kohya",
    "kohya's sd-scripts",
    "*.safetensors",  # under a name of the user's choice
    config="",
    instead="load it with pipeline.load_lora_weights(DIR) of diffusers, which can fuse_lora()",
    names_modules=False,
)
FORMATS: Mapping[str, Format] = {format.name: format for format in (PEFT, ADAPTERHUB, MLX, DIFFUSERS, KOHYA)}

_NAMED = frozenset(format.weights for format in FORMATS.values())
_WHOLE_MODEL = re.compile(r"(?:model|pytorch_model|diffusion_pytorch_model)\b.*\.safetensors")
_PICKLES = re.compile(r".*\.(?:bin|pt|pth|ckpt|pkl|pickle|npz|h5)")
_REASONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_PICKLES, "a pickle: loading it runs code, so it is never stored"),
    (re.compile(r"checkpoint-\d+|runs|global_step\d+|.*\.log"), "training state, not part of the adapter"),
    (re.compile(r"\d+_adapters\.safetensors"), "an earlier step of the training"),
    (re.compile(r"trainer_state\.json|config\.json"), "describes a training run or a base, not the adapter"),
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder: those kept, and those left out with the reason of each."""

    format: Format
    kept: tuple[str, ...]
    left_out: Mapping[str, str]


def format_of(names: Iterable[str]) -> Format | None:
    """The format of an adapter of these files, told by the name of its weights; None where it is none."""
    present = set(names)
    for format in FORMATS.values():
        if format.weights in present and format.config in (present | {""}):
            return format
    single = [name for name in present if name.endswith(".safetensors") and not _WHOLE_MODEL.fullmatch(name)]
    if len(single) == 1 and CONFIG not in present and single[0] not in _NAMED:
        return replace(KOHYA, weights=single[0])
    return None


def list_folder(folder: Path) -> Listing:
    """What `folder` holds. Raises `NotFound` or `Unsupported` where it holds no adapter we read."""
    if not folder.is_dir():
        raise NotFound(f"no folder at {folder}")
    paths = sorted(folder.iterdir())
    format = format_of(path.name for path in paths) or _refuse(folder, {path.name for path in paths})
    kept: list[str] = []
    left_out: dict[str, str] = {}
    for path in paths:
        if not format.keeps(path.name):
            left_out[path.name] = _why_left_out(path.name)
        elif path.is_symlink() and not _is_in_same_cache(path):
            copy = f"{folder.name or 'adapter'}-copy"
            raise Invalid(
                f"{path} is a link to a file elsewhere; copy the files themselves and use that: "
                f"cp -rL {shlex.quote(str(folder))} {shlex.quote(copy)}"
            )
        else:
            kept.append(check_path(path.name))
    return Listing(format, tuple(kept), left_out)


def _is_in_same_cache(link: Path) -> bool:
    """Whether a link is one of a Hugging Face cache: from a snapshot into the blobs of the same repository."""
    target = Path(os.path.realpath(link))  # unlike `resolve`, it bears links that go round in a circle
    snapshots = (parent for parent in link.absolute().parents if parent.name == "snapshots")
    return any(target.is_relative_to(os.path.realpath(place.parent / "blobs")) for place in snapshots)


def _refuse(folder: Path, names: set[str]) -> Format:
    """Says why there is no adapter. Raises always."""
    for format in FORMATS.values():
        if format.pickle in names and format.config in names | {""}:
            raise Unsupported(f"{folder} holds its weights as a pickle ({format.pickle}); {format.remedy}")
    if CONFIG in names:
        raise NotFound(f"{folder} has {CONFIG} but no {WEIGHTS}; did the training save the adapter?")
    if WEIGHTS in names:
        raise NotFound(f"{folder} has {WEIGHTS} but no {CONFIG}, so its method and scale are unknown")
    if any(_WHOLE_MODEL.fullmatch(name) for name in names):
        raise NotFound(f"{folder} is a whole model, not an adapter (try `adaptry base add {folder}`)")
    several = sorted(name for name in names if name.endswith(".safetensors"))
    if len(several) > 1:
        raise NotFound(
            f"{folder} holds {len(several)} files of weights ({', '.join(several[:3])}); push each from its own folder"
        )
    raise NotFound(
        f"{folder} holds no adapter: {CONFIG} and {WEIGHTS} are what PEFT's save_pretrained writes"
    )


def _why_left_out(name: str) -> str:
    for pattern, reason in _REASONS:
        if pattern.fullmatch(name):
            return reason
    return "not a file of an adapter"
