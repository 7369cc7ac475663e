"""The weights of a base on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.core.errors import AdaptryError
from adaptry.core.refs import is_folder_path
from adaptry.operations.base_registry import folders_of


def local_checkpoints(base: BaseRecord, given: Path | str | None) -> Iterator[HfCheckpoint]:
    """The checkpoints of the base in the folder `given`, if it is one, and in recorded folders."""
    is_folder = isinstance(given, Path) or (given is not None and is_folder_path(given, of_base=True))
    folders = [Path(given)] if given is not None and is_folder else []
    for folder in (*folders, *folders_of(base.id)):
        try:
            checkpoint = open_checkpoint(folder)
            if fingerprint(checkpoint).id == base.id:
                yield checkpoint
        except AdaptryError:
            continue  # gone, moved or overwritten
