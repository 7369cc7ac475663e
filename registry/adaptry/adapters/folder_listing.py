"""The files of a folder: which belong to the adapter, and why each other file is left out.

Links are followed only inside a Hugging Face cache. Pickles and optimizer state are left out with a notice,
and never stored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from adaptry.adapters.content import open_regular
from adaptry.adapters.formats import CONFIG, WHOLE_MODEL, AdapterFormat, detect_format
from adaptry.adapters.images import MAX_IMAGE, MAX_IMAGES, check_image, is_image
from adaptry.core.errors import Invalid, NotFound, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.tree_paths import check_path

_REASONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        lazy_pattern(r".*\.(?:bin|pt|pth|ckpt|pkl|pickle|npz|h5|distcp)"),
        "a pickle, which is never stored, because loading it runs code",
    ),
    (lazy_pattern(r".*\.(?:py|sh|so|ipynb)"), "a program, which is never stored"),
    (
        lazy_pattern(r"checkpoint-\d+|runs|wandb|global_step\d+|latest|.*\.log"),
        "training state, not part of the adapter",
    ),
    (lazy_pattern(r"\d+_adapters\.safetensors"), "an earlier step of the training"),
    (
        lazy_pattern(r"trainer_state\.json"),
        "the log of a training run, not part of the adapter; its values can be stored as evidence:"
        " adaptry evidence add REF trainer_state.json",
    ),
    (
        lazy_pattern(r"trainer_log\.jsonl|(?:all|train|eval)_results\.json"),
        "describes a training run, not the adapter",
    ),
    (lazy_pattern(r"config\.json"), "the config of a base model, not of the adapter"),
    (WHOLE_MODEL, "weights of a whole model, not of the adapter"),
    (lazy_pattern(r".*\.(?:safetensors|gguf)"), "weights of another adapter or in another layout"),
)

_NO_PART = "not an adapter file"


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The files of a folder: those kept, and those left out, each with its reason."""

    format: AdapterFormat
    kept: tuple[str, ...]
    left_out: Mapping[str, str]


def list_folder(folder: Path) -> FolderListing:
    """Lists `folder`. Raises `NotFound` or `Unsupported` if it holds no adapter that we read."""
    if folder.is_file():
        from adaptry.adapters.diagnostics import raise_is_file  # needed only for its message

        raise_is_file(folder)
    if not folder.is_dir():
        raise NotFound(f"no folder at {folder}")
    paths = sorted(folder.iterdir())
    format = detect_format(path.name for path in paths)
    if format is None:
        from adaptry.adapters.diagnostics import raise_no_adapter  # needed only for its message

        raise_no_adapter(folder, {path.name for path in paths})
    kept: list[str] = []
    left_out: dict[str, str] = {}
    for path in paths:
        if not format.includes(path.name):
            left_out[path.name] = _why_left_out(path)
            continue
        require_own_file(path)
        if is_image(path.name) and (reason := _why_no_image(path, kept)):
            left_out[path.name] = reason
        else:
            kept.append(check_path(path.name))
    return FolderListing(format, tuple(kept), left_out)


def require_own_file(path: Path) -> None:
    """Raises `Invalid` for a link to a file elsewhere, unless both are in the same Hugging Face cache."""
    if path.is_symlink() and not _is_in_same_cache(path):
        import shlex  # for this message only

        folder = path.parent
        copy = f"{folder.name or 'adapter'}-copy"
        raise Invalid(
            f"{path} is a link to a file elsewhere; copy the files themselves and use that: "
            f"cp -rL {shlex.quote(str(folder))} {shlex.quote(copy)}"
        )


def _why_no_image(path: Path, kept: list[str]) -> str | None:
    """Why an image is left out; None if it is kept. Storing a README without its images is better than
    storing no version.
    """
    if sum(map(is_image, kept)) >= MAX_IMAGES:
        return f"more than {MAX_IMAGES} images"
    with open_regular(path) as file:
        data = file.read(MAX_IMAGE + 1)
    try:
        check_image(path.name, data or b"")
    except Unsupported as error:
        return error.message.removeprefix(f"{path.name} is ")
    return None


def _is_in_same_cache(link: Path) -> bool:
    """Whether a link belongs to a Hugging Face cache: from a snapshot to a blob of the same repository."""
    target = Path(os.path.realpath(link))  # unlike `resolve`, it tolerates circular links
    snapshots = (parent for parent in link.absolute().parents if parent.name == "snapshots")
    return any(target.is_relative_to(os.path.realpath(place.parent / "blobs")) for place in snapshots)


def exclusion_reason(path: str) -> str:
    """Why a file with this name is not part of an adapter; the name of its folder counts too."""
    names = {path.partition("/")[0], path.rpartition("/")[2]}
    for pattern, reason in _REASONS:
        if any(map(pattern.fullmatch, names)):
            return reason
    return _NO_PART


def _why_left_out(path: Path) -> str:
    reason = exclusion_reason(path.name)
    if reason == _NO_PART and (path / CONFIG).is_file():
        return "another adapter: push that folder separately"
    return reason
