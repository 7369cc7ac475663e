"""Opens the adapters that are combined, each with its base if that is certain (docs/decisions/114)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.compute.foreign_layouts.to_peft import parent_as_peft
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.progress import Progress
from adaptry.core.refs import Ref
from adaptry.operations.known_base import base_or_known, ignore_note
from adaptry.operations.sources import (
    ParentSource,
    RegistryOpener,
    Warn,
    find_base,
    open_parent,
    with_configured_base,
)


def open_parents(
    connected: RegistryOpener,
    sources: Sequence[tuple[ParentSource, str | None]],
    base: Path | str | None,
    *,
    note: Warn = ignore_note,
    warn: Warn,
    progress: Progress,
) -> list[ParentAdapter]:
    """The adapters, in the order of `sources`, which are pairs of a source and its label (None: its own).

    `base` is the base of adapters whose base the registry does not know. Without it, their own base is used
    if it is certain, and `note` receives a sentence about it. Raises the errors of `open_parent` and
    `find_base`, and `CheckFailed` if an adapter needs a base and has none.
    """

    @functools.cache
    def record(key: Path | str) -> BaseRecord | None:
        return find_base(connected, key).record

    return [
        _opened(connected, source, label, base, record, note, warn, progress) for source, label in sources
    ]


def _opened(
    connected: RegistryOpener,
    source: ParentSource,
    label: str | None,
    given: Path | str | None,
    record: Callable[[Path | str], BaseRecord | None],
    note: Warn,
    warn: Warn,
    progress: Progress,
) -> ParentAdapter:
    if isinstance(source, Ref):
        parent = open_parent(connected, source, warn=warn, progress=progress)
        if parent.base is not None:
            return parent
    with base_or_known(connected, source, given, note) as base:

        def known() -> BaseRecord | None:
            return None if base is None else record(base)

        if not isinstance(source, Ref):
            parent = open_parent(
                connected, source, label=label, gguf_base=known, warn=warn, progress=progress
            )
        parent = with_configured_base(parent, given)
        parent = replace(parent, base=parent.base or known())
        parent_as_peft(parent)  # an error that asks for the base then states why it is not known
    return parent
