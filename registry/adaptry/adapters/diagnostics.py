"""Messages for folders without a readable adapter: the reason, and what to do about it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NoReturn

from adaptry.adapters.formats import CONFIG, FORMATS, WEIGHTS, WHOLE_MODEL
from adaptry.core.errors import NotFound, Unsupported
from adaptry.core.refs import folder_argument

_OTHER_TOOLS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r".+\.nemo"),
        (
            "is NeMo's archive, with a pickle inside: convert it to PEFT's files with NeMo "
            "(scripts/checkpoint_converters) and push those"
        ),
    ),
    (
        re.compile(r".+\.distcp"),
        (
            "is a part of a distributed checkpoint, a pickle: let the tool that wrote it export PEFT's files"
            " (NeMo: llm.export_ckpt with target hf-peft; Megatron Bridge: AutoBridge.export_adapter_weights,"
            " saved as adapter_model.safetensors) and push those"
        ),
    ),
    (
        re.compile(r".+\.gguf"),
        (
            "is a GGUF file, llama.cpp's format. If it is a LoRA, use the folder it was converted from, or"
            " convert it back into PEFT's layout: adaptry convert FILE --base BASE -o NAME"
        ),
    ),
    (
        re.compile(r"adapter_(?:model|\d+)\.pt"),
        "is torchtune's checkpoint, a pickle: push the adapter_model.safetensors that its Hugging Face"
        " checkpointer writes next to it. If that file does not exist, write an adapter_config.json with"
        ' {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA} of its training config into that folder,'
        " rename the checkpoint to adapter_model.pt, and try again",
    ),
    (
        re.compile(r".+\.(?:tar|tar\.(?:gz|xz|bz2|zst)|tgz)"),
        "is an archive: unpack it (tar -xf) and push the folder inside",
    ),
    (re.compile(r".+\.(?:zip|7z|rar)"), "is an archive: unpack it (unzip) and push the folder inside"),
)
"""Files with an adapter in a format that we do not read, with the remedy."""


_SHARD = re.compile(r"adapter_model-\d+-of-\d+\.(?:safetensors|bin)|adapter_model\.safetensors\.index\.json")


_JOIN = (
    'python -c "import glob, safetensors.torch as s;'
    " s.save_file({k: v for part in glob.glob('adapter_model-*.safetensors')"
    f" for k, v in s.load_file(part).items()}}, '{WEIGHTS}', {{'format': 'pt'}})\""
)


def raise_no_adapter(folder: Path, names: set[str]) -> NoReturn:
    """Raises `NotFound` or `Unsupported` with the reason why a folder with these files has no adapter."""
    for format in FORMATS.values():
        if format.pickle in names and format.config in names | {""}:
            raise Unsupported(f"{folder} holds its weights as a pickle ({format.pickle}); {format.remedy}")
    for pattern, what in _OTHER_TOOLS:
        for name in sorted(filter(pattern.fullmatch, names)):
            _refuse_other_tool(folder / name, what)
    where = shlex.quote(folder_argument(folder))
    if inside := sorted((path.parent.name for path in folder.glob(f"*/{CONFIG}")), key=_with_numbers):
        shown = (
            ", ".join(inside[-3:]) if len(inside) < 5 else f"{inside[-1]} and {len(inside) - 1} other folders"
        )
        raise NotFound(
            f"{folder} holds no adapter itself, but {shown} inside it {'do' if len(inside) > 1 else 'does'}:"
            f" pass {'one of them' if len(inside) > 1 else 'that'}, such as"
            f" {shlex.quote(folder_argument(folder / inside[-1]))}; `adaptry inspect {where}` lists all, and"
            f" `adaptry import {where} --to NAMESPACE` stores all"
        )
    if "adapter_fusion_config.json" in names:
        raise Unsupported(
            f"{folder} is an AdapterHub fusion, which is useless without its adapters: push each adapter,"
            " saved with model.save_adapter(DIR, NAME, use_safetensors=True)"
        )
    _refuse_half(folder, names)


def raise_is_file(file: Path) -> NoReturn:
    """Raises `Unsupported` for another tool's file, with the command that converts it; otherwise
    `NotFound`.
    """
    for pattern, what in _OTHER_TOOLS:
        if pattern.fullmatch(file.name):
            _refuse_other_tool(file, what)
    raise NotFound(f"{file} is a file; pass the folder that contains it: {folder_argument(file.parent)}")


def _refuse_other_tool(file: Path, what: str) -> NoReturn:
    raise Unsupported(f"{file} {what.replace('FILE', shlex.quote(folder_argument(file)))}")


def _with_numbers(name: str) -> tuple[str, int]:
    """A sort key that puts checkpoint-1000 after checkpoint-500."""
    text = name.rstrip("0123456789")
    return text, int(name[len(text) :][:18] or 0)


def _refuse_half(folder: Path, names: set[str]) -> NoReturn:
    """Raises for a folder with some of an adapter's files, or with something else."""
    if shards := sorted(filter(_SHARD.fullmatch, names)):
        again = "save the adapter again with PEFT's save_pretrained"
        has_pickles = any(name.endswith(".bin") for name in shards)
        remedy = again if has_pickles else f"{again}, or join them, once, in that folder: {_JOIN}"
        raise Unsupported(
            f"{folder} holds its weights in parts ({', '.join(shards[:3])}), which PEFT does not load:"
            f" {remedy}"
        )
    partial = sorted(name for name in names if name.startswith(f"{WEIGHTS}."))
    if CONFIG in names and partial:
        raise NotFound(
            f"{folder} has {partial[0]}, which looks like an interrupted download, but no {WEIGHTS}: download"
            " it again"
        )
    if CONFIG in names:
        raise NotFound(f"{folder} has {CONFIG} but no {WEIGHTS}; did the training save the adapter?")
    if WEIGHTS in names:
        raise NotFound(
            f"{folder} has {WEIGHTS} but no {CONFIG}, so its method and scale are unknown; copy"
            f" {CONFIG} from the output of the training run"
        )
    if "model_index.json" in names or any(WHOLE_MODEL.fullmatch(name) for name in names):
        raise NotFound(
            f"{folder} is a whole model, not an adapter (try `adaptry base add {folder_argument(folder)}`)"
        )
    several = sorted(name for name in names if name.endswith(".safetensors"))
    if len(several) > 1:
        raise NotFound(
            f"{folder} holds {len(several)} files of weights ({', '.join(several[:3])});"
            " push each from its own folder"
        )
    raise NotFound(
        f"{folder} has no adapter: it lacks {CONFIG} and {WEIGHTS}, which PEFT's save_pretrained writes"
    )
