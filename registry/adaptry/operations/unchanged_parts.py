"""Finds parts of an adapter that change nothing, with its base's weights if they are on this machine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.weights import find_unchanged_parts
from adaptry.operations.local_checkpoints import local_checkpoints


def find_unchanged(adapter: Adapter, base: BaseRecord | None, given: Path | str | None) -> Collection[str]:
    """The parts that `find_unchanged_parts` finds, and, if the weights of `base` are in the folder `given` or
    in a recorded one, rows and modules that leave these weights unchanged.
    """
    found = {*find_unchanged_parts(adapter, base)}
    spec = adapter.spec
    modules = {module.path for module in spec.modules} - found
    rows = any(extra.kind == "token_rows" for extra in spec.extras)
    if base is None or not (modules or rows) or not adapter.format.names_modules:
        return found
    checkpoint = next(local_checkpoints(base, given), None)
    if checkpoint is None:
        return found
    # Only for an adapter that may change nothing.
    from adaptry.checks.base.copied_rows import rows_of_base
    from adaptry.compute.merging.unchanged_base import leaves_base_unchanged

    found |= rows_of_base(adapter, base, checkpoint)
    if modules and leaves_base_unchanged(adapter, base, checkpoint):
        found |= modules
    return found
