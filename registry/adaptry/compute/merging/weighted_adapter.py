"""An opened input of a merge, and the reasons against merging it that follow from its files alone."""

from __future__ import annotations

from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.checks.binding import as_peft_reads
from adaptry.compute.foreign_layouts.to_peft import open_as_peft, refuse_other_layout
from adaptry.core.errors import Unsupported
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class WeightedAdapter:
    """An adapter, its weight, the user's name for it, and its base, if that is known.

    `original` is the adapter as its tool wrote it, if `adapter` is a view of it in PEFT's layout. `base_name`
    is the registered name of the base.
    """

    adapter: Adapter
    weight: float
    label: str
    base: BaseRecord | None = None
    original: Adapter | None = None
    base_name: str | None = None

    @property
    def named(self) -> Adapter:
        """The adapter that a record names."""
        return self.original or self.adapter

    @property
    def base_label(self) -> str:
        """The label of the adapter's base in messages: its name, or else the first digits of its id."""
        return self.base_name or (self.base.id.brief if self.base else "no base")


def refuse_unmergeable(entry: WeightedAdapter) -> None:
    """Raises `Unsupported`, `CheckFailed` if its files alone show that it cannot be merged."""
    spec, label = entry.adapter.spec, entry.label
    if entry.adapter.format is not PEFT:
        refuse_other_layout(entry.adapter, label)
        return
    method = METHODS.get(spec.method)
    if method is None:
        raise Unsupported(
            f"{label} is {spec.method}, which is not supported here: use the library that trained it"
        )
    if reason := method.unmergeable_reason(entry.adapter.config):
        raise Unsupported(f"{label}: {reason}")
    if not method.is_mergeable:
        raise Unsupported(f"{label} is {method.title}: {method.unmergeable_hint}")


def seen_as_peft(entry: WeightedAdapter, base: BaseRecord) -> tuple[WeightedAdapter, tuple[str, ...]]:
    """The input `entry` in PEFT's layout, which merging needs, and notes. Raises the errors of `open_as_peft`
    and `refuse_unmergeable`, and `MissingDependency` (a package of its method).
    """
    refuse_unmergeable(entry)
    if entry.adapter.format is PEFT:
        METHODS[entry.adapter.spec.method].check_installed()
        read = as_peft_reads(entry.adapter, base)
        return (entry if read is entry.adapter else replace(entry, adapter=read, original=entry.adapter)), ()
    seen = open_as_peft(entry.adapter, entry.label, base)
    return replace(entry, adapter=seen.adapter, original=entry.adapter), seen.notes
