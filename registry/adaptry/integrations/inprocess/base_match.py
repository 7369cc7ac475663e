"""Compares the model in memory with the base that a version was trained on, by its files' content.

The weights in memory may be cast, quantised or sharded over devices, so the files are compared: the folder or
the hub's cache that the model was loaded from. Without files, the result is unknown.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from adaptry.adapters.base_record import BaseRecord, Match
from adaptry.core.errors import AdaptryError, CheckFailed
from adaptry.integrations.inprocess.fetch import FetchedFiles
from adaptry.registry.bases import base_record_or_none

if TYPE_CHECKING:
    from torch.nn import Module

FileStamps: TypeAlias = tuple[tuple[str, int, int, int], ...]


def require_same_base(model: Module, files: FetchedFiles) -> Match | None:
    """Returns how the model's files match the version's base; None if either is not known by content.

    Raises `CheckFailed` if they are different models.
    """
    if files.version is None or files.registry is None:
        return None
    trained_on = base_record_or_none(files.registry.bases, files.version)
    folder = _files_of(model)
    if trained_on is None or folder is None:
        return None
    from adaptry.bases.fingerprinting.match import match_bases

    try:
        found = match_bases(_fingerprint(folder, _file_stamps(folder)), trained_on)
    except (AdaptryError, OSError):  # a pickle or an incomplete checkpoint, which we cannot identify
        return None
    if found.level in ("different", "same_shapes"):
        name = files.version.base_name or files.version.base_id
        raise CheckFailed(
            f"{files} was trained on {name}, and the model from {folder} is another one: {found.evidence}; "
            "load that base, or pass other_base=True to use the adapter on this one anyway"
        )
    return found


@lru_cache(maxsize=4)
def _fingerprint(folder: Path, stamps: FileStamps) -> BaseRecord:
    """The fingerprint of the files that have these stamps; computed once, since models take many adapters."""
    from adaptry.bases.fingerprinting import fingerprint
    from adaptry.bases.hf_folder import open_checkpoint

    return fingerprint(open_checkpoint(folder))


def _file_stamps(folder: Path) -> FileStamps:
    """Each file's size, inode and change time (which programs cannot set), following links."""
    found = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, stat.st_size, stat.st_ino, stat.st_ctime_ns) for name, stat in found)


def _files_of(model: Module) -> Path | None:
    """The folder that transformers read the model from; which may be in the hub's cache."""
    name = getattr(getattr(model, "config", None), "_name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    commit = getattr(model.config, "_commit_hash", None)
    try:
        config = try_to_load_from_cache(name, "config.json", revision=commit)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None
