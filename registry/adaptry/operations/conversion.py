"""Chooses the conversion of an adapter, by its kind and the request: another layout, PEFT's layout, or a
LoRA.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.conversion.convert import convert, needs_base_values
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.foreign_layouts.gguf_lora import convert_gguf_to_peft
from adaptry.compute.foreign_layouts.gguf_reader import find_gguf
from adaptry.compute.foreign_layouts.to_peft import convert_to_peft
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.layout_conversion.module_names import LayoutVersion
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import is_folder_path
from adaptry.operations.base_registry import open_base
from adaptry.operations.known_base import base_or_known, ignore_note
from adaptry.operations.sources import (
    ParentSource,
    RegistryOpener,
    Warn,
    find_base,
    open_parent,
    with_configured_base,
)


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """`base`: a base other than the known one. `note` receives a sentence about the base that is used if none
    is given. `layout`: only rewrite the
    file in this layout. `part`: the part of a pipeline to take from another tool's file. `options`: options
    of the LoRA. `is_reported`: the result will be compared with its parent, module by module. `only_layout`,
    `only_to_peft`: error messages if a file is only rewritten and other options were given.
    """

    options: ConvertOptions
    base: Path | str | None = None
    layout: LayoutVersion | None = None
    part: str | None = None
    is_reported: bool = False
    note: Warn = ignore_note
    only_layout: str = "a layout changes no weights: leave out all other options but the base"
    only_to_peft: str = (
        "a file of another tool is converted to PEFT's layout without other changes: leave out the other "
        "options, and convert the result"
    )

    @property
    def needs_lora(self) -> bool:
        """Whether the request needs a newly computed LoRA, and not only a rewritten file."""
        return self.is_reported or self.options != ConvertOptions()


def plan_conversion(
    connected: RegistryOpener,
    source: ParentSource,
    request: ConversionRequest,
    *,
    label: str | None = None,
    warn: Warn,
    progress: Progress = no_progress,
) -> LazyAdapter:
    """The result of the conversion, as an adapter that is not computed yet.

    Raises `Invalid` (options that do not go together, or a base that is needed), `Unsupported`,
    `CheckFailed`, and the errors of `open_parent`.
    """
    with base_or_known(connected, source, request.base, request.note) as base:
        known = replace(request, base=base)
        return _planned(connected, source, known, label=label, warn=warn, progress=progress)


def _planned(
    connected: RegistryOpener,
    source: ParentSource,
    request: ConversionRequest,
    *,
    label: str | None,
    warn: Warn,
    progress: Progress,
) -> LazyAdapter:
    if request.layout is not None:
        _require(not request.needs_lora and request.part is None, request.only_layout)
        parent = open_parent(connected, source, label=label, warn=warn, progress=progress)
        return convert_layout(parent, _base_shapes(connected, request.base, parent), request.layout)
    if isinstance(source, Path) and (file := find_gguf(source.expanduser())) is not None:
        _require(not request.needs_lora and request.part is None, request.only_to_peft)
        record = None if request.base is None else find_base(connected, request.base).record
        return convert_gguf_to_peft(file, label or str(source), record)
    parent = open_parent(connected, source, label=label, warn=warn, progress=progress)
    if parent.adapter.format is not PEFT:
        _require(not request.needs_lora, request.only_to_peft)
        return convert_to_peft(parent, _known_base(connected, request.base, parent), request.part)
    _require(request.part is None, "a part can be chosen only from a file with several parts of a pipeline")
    parent = with_configured_base(parent, request.base)
    return convert(
        parent, request.options, _conversion_base(connected, request.base, parent, request.options, progress)
    )


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Invalid(sentence)


def _conversion_base(
    connected: RegistryOpener,
    base: Path | str | None,
    parent: ParentAdapter,
    options: ConvertOptions,
    progress: Progress,
) -> ConversionBase | None:
    """The base that the caller names, else the registry's. Its weights are opened only if they are needed."""
    if base is None and parent.base is None:
        return None
    key = base or str(parent.base.id if parent.base else "")
    if isinstance(key, Path) or is_folder_path(key, of_base=True):
        checkpoint = open_checkpoint(key)
    elif needs_base_values(parent, options):
        checkpoint = open_base(connected(), key, progress=progress)
    else:
        return ConversionBase(connected().bases.record(connected().bases.get(key).id))
    return ConversionBase(fingerprint(checkpoint), checkpoint)


def _base_shapes(connected: RegistryOpener, base: Path | str | None, parent: ParentAdapter) -> BaseRecord:
    """The shapes of the base that the caller names, else of the registered one."""
    known = _known_base(connected, base, parent)
    if known is None:
        raise Invalid(
            f"converting the layout of {parent.label} needs the shapes of its base;"
            " pass --base NAME or --base ./DIR"
        )
    return known


def _known_base(
    connected: RegistryOpener, base: Path | str | None, parent: ParentAdapter
) -> BaseRecord | None:
    """The record of the base that the caller names, else of the registered one."""
    return parent.base if base is None else find_base(connected, base).record
