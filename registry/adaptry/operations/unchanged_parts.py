"""Finds parts of an adapter that change nothing, with its base's weights if they are on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.checks.weights import find_unchanged_parts
from adaptry.core.errors import AdaptryError
from adaptry.core.refs import is_folder_path
from adaptry.operations.base_registry import folders_of


def find_unchanged(adapter: Adapter, base: BaseRecord | None, given: Path | str | None) -> Collection[str]:
    """The parts that `find_unchanged_parts` finds, and, if the weights of `base` are in the folder `given` or
    in a recorded one, rows and modules that leave them as they are.
    """
    found = {*find_unchanged_parts(adapter, base)}
    spec = adapter.spec
    modules = {module.path for module in spec.modules} - found
    rows = any(extra.kind == "token_rows" for extra in spec.extras)
    if base is None or not (modules or rows) or not adapter.format.names_modules:
        return found
    checkpoint = next(_checkpoints(base, given), None)
    if checkpoint is None:
        return found
    # Only for an adapter that may change nothing.
    from adaptry.checks.base.copied_rows import rows_of_base
    from adaptry.compute.merging.unchanged_base import leaves_base_unchanged

    found |= rows_of_base(adapter, base, checkpoint)
    if modules and leaves_base_unchanged(adapter, base, checkpoint):
        found |= modules
    return found


def _checkpoints(base: BaseRecord, given: Path | str | None) -> Iterator[HfCheckpoint]:
    """The checkpoints of the base on this machine."""
    is_folder = isinstance(given, Path) or (given is not None and is_folder_path(given))
    folders = [Path(given)] if given is not None and is_folder else []
    for folder in (*folders, *folders_of(base.id)):
        try:
            checkpoint = open_checkpoint(folder)
            if fingerprint(checkpoint).id == base.id:
                yield checkpoint
        except AdaptryError:
            continue  # gone, moved or overwritten
