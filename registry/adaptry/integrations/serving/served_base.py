"""Identifies the base that an engine serves, by the fingerprint of its weights.

A path or a name does not identify the weights. The fingerprint reads headers and a few short samples of each
tensor, once. A folder that changed after the engine started may have weights that the engine does not have.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import CONFIG, open_checkpoint
from adaptry.core.errors import AdaptryError, CheckFailed
from adaptry.registry.interface import Registry

START_SECONDS = 2.0
"""How much later than its reported start, which is rounded to a second, an engine begins to read its base."""
_WEIGHTS = (".safetensors", ".bin", ".index.json")


def identify_served_base(
    registry: Registry,
    model: str,
    revision: str | None = None,
    configured: str | None = None,
    started_at: float | None = None,
) -> BaseRecord:
    """The base of an engine started with `model`: a folder, or a Hub name with its files on this machine.

    `configured` is the name or id of a base in the registry, used instead without a check. `started_at` is
    when the engine's process started (Unix time). Raises `CheckFailed`, with a remedy, if the weights cannot
    be read, or if the folder was changed after the start.
    """
    if configured:
        return registry.bases.record(registry.bases.get(configured).id)
    try:
        record = fingerprint(open_checkpoint(_folder(model, revision)))
        if started_at is not None and (changed := _changed_since(Path(model).expanduser(), started_at)):
            raise CheckFailed(
                f"{changed} was changed after the engine started, so the engine may have other weights;"
                " restart it"
            )
        return record
    except (AdaptryError, OSError, ValueError) as error:
        raise CheckFailed(
            f"the base that this engine serves cannot be identified from {model}:"
            f" {str(error).rstrip('.')}; or set ADAPTRY_BASE (for `adaptry follow`: --base) to its name in"
            " the registry"
        ) from error


def _folder(model: str, revision: str | None) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir() or folder.is_absolute():
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return folder
    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:  # the library's messages are about its own arguments
        raise CheckFailed("no such folder, and no such model in this machine's cache of the Hub") from error


def _changed_since(folder: Path, started_at: float) -> Path | None:
    """The parts of a folder, or of the links that lead to it, that were written, renamed or replaced since
    then. A file's ctime shows this even if its mtime was preserved. A name on a Hub is not a folder, and its
    files never change.
    """
    since = started_at + START_SECONDS
    links = [path for path in (folder, *folder.parents) if path.is_symlink()]
    files = [path for path in folder.glob("*") if path.name == CONFIG or path.name.endswith(_WEIGHTS)]
    for path in (*links, *files):
        if path.lstat().st_ctime > since or path.stat().st_ctime > since:
            return path
    return folder if folder.is_dir() and _was_renamed(folder, since) else None


def _was_renamed(folder: Path, since: float) -> bool:
    """Whether the folder was renamed: a new entry sets both times, a new name of the folder only one."""
    found = folder.stat()
    return found.st_ctime > since and found.st_ctime_ns != found.st_mtime_ns
