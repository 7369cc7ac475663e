"""Which files of a folder make an adapter, and which are left out and why.

Only names on this list are ever stored, and links only where they are those of a Hugging Face cache. Pickles
and optimizer state are left out with a notice; an adapter that exists only as a pickle is refused with the line that
converts it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adaptry.errors import Invalid, NotFound, Unsupported
from adaptry.manifest import check_path

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_KEPT = re.compile(
    r"adapter_config\.json|adapter_model\.safetensors|README\.md|(?:LICENSE|NOTICE)(?:\.(?:md|txt))?"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:json|txt)|merges\.txt|chat_template\.(?:jinja|json)|generation_config\.json"
)
_PICKLES = re.compile(r".*\.(?:bin|pt|pth|ckpt|pkl|pickle|npz|h5)")
_REASONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_PICKLES, "a pickle: loading it runs code, so it is never stored"),
    (re.compile(r"checkpoint-\d+|runs|global_step\d+|.*\.log"), "training state, not part of the adapter"),
    (re.compile(r"trainer_state\.json|config\.json"), "describes a training run or a base, not the adapter"),
)
_FROM_BIN = (
    'convert it once, in that folder: python -c "import torch, safetensors.torch as s; '
    "s.save_file({k: v.contiguous() for k, v in torch.load('adapter_model.bin', weights_only=True).items()}, "
    "'adapter_model.safetensors')\""
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder: those kept, and those left out with the reason of each."""

    kept: tuple[str, ...]
    left_out: Mapping[str, str]


def is_kept(name: str) -> bool:
    """Whether a file of this name may be part of a stored adapter."""
    return bool(_KEPT.fullmatch(name))


def list_folder(folder: Path) -> Listing:
    """What `folder` holds. Raises `NotFound` or `Unsupported` where it holds no adapter we read."""
    if not folder.is_dir():
        raise NotFound(f"no folder at {folder}")
    kept: list[str] = []
    left_out: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if not is_kept(path.name):
            left_out[path.name] = _why_left_out(path.name)
        elif path.is_symlink() and not _is_in_same_cache(path):
            copy = f"{folder.name or 'adapter'}-copy"
            raise Invalid(
                f"{path} is a link to a file elsewhere; copy the files themselves and use that: "
                f"cp -rL {shlex.quote(str(folder))} {shlex.quote(copy)}"
            )
        else:
            kept.append(check_path(path.name))
    _require_adapter(folder, kept, left_out)
    return Listing(tuple(kept), left_out)


def _is_in_same_cache(link: Path) -> bool:
    """Whether a link is one of a Hugging Face cache: from a snapshot into the blobs of the same repository."""
    target = Path(os.path.realpath(link))  # unlike `resolve`, it bears links that go round in a circle
    snapshots = (parent for parent in link.absolute().parents if parent.name == "snapshots")
    return any(target.is_relative_to(os.path.realpath(place.parent / "blobs")) for place in snapshots)


def _require_adapter(folder: Path, kept: list[str], left_out: Mapping[str, str]) -> None:
    if CONFIG in kept and WEIGHTS in kept:
        return
    if CONFIG in kept and "adapter_model.bin" in left_out:
        raise Unsupported(f"{folder} holds its weights as a pickle (adapter_model.bin); {_FROM_BIN}")
    if CONFIG in kept:
        raise NotFound(f"{folder} has {CONFIG} but no {WEIGHTS}; did the training save the adapter?")
    if WEIGHTS in kept:
        raise NotFound(f"{folder} has {WEIGHTS} but no {CONFIG}, so its method and scale are unknown")
    if any(name.startswith("model") and name.endswith(".safetensors") for name in left_out):
        raise NotFound(f"{folder} is a whole model, not an adapter (try `adaptry base add {folder}`)")
    raise NotFound(
        f"{folder} holds no adapter: {CONFIG} and {WEIGHTS} are what PEFT's save_pretrained writes"
    )


def _why_left_out(name: str) -> str:
    for pattern, reason in _REASONS:
        if pattern.fullmatch(name):
            return reason
    return "not a file of an adapter"
