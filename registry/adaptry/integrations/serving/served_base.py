"""Identifies the base that an engine serves, by the fingerprint of its weights.

A path or a name does not identify the weights. The fingerprint reads headers and a few short samples of each
tensor, once.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import AdaptryError, CheckFailed
from adaptry.registry.interface import Registry


def identify_served_base(
    registry: Registry, model: str, revision: str | None = None, configured: str | None = None
) -> BaseRecord:
    """The base of an engine started with `model`: a folder, or a Hub name with its files on this machine.

    `configured` is the name or id of a base in the registry, used instead without a check. Raises
    `CheckFailed`, with a remedy, if the weights cannot be read.
    """
    if configured:
        return registry.bases.record(registry.bases.get(configured).id)
    try:
        return fingerprint(open_checkpoint(_folder(model, revision)))
    except (AdaptryError, OSError, ValueError) as error:
        raise CheckFailed(
            f"the base that this engine serves cannot be identified from {model}: {error}. Set"
            " ADAPTRY_BASE to its name in the registry"
        ) from error


def _folder(model: str, revision: str | None) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return folder
    return Path(snapshot_download(model, revision=revision, local_files_only=True))
