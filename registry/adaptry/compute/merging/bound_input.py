"""Binds the inputs of a merge to the base, once; everything later uses the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord, TensorShape
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ModuleMap
from adaptry.checks import check
from adaptry.checks.binding import BoundAdapter, bind, require_complete
from adaptry.compute.merging.lora_requirements import require_lora
from adaptry.compute.merging.replication import replicate_layers
from adaptry.compute.merging.requirements import (
    check_base,
    orientation_notes,
    require_places,
    require_shapes,
)
from adaptry.compute.merging.vocabulary import RowCounts, check_single_input, new_rows
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

_NOTED_CODES = frozenset(
    [
        "keys_unknown",
        "layers_uncovered",
        "targets_without_tensors",
        "saved_modules_without_tensors",
        "merge_differs",
    ]
)
"""Findings that do not block, but mean that the result may lack trained parts."""


@dataclass(frozen=True, slots=True)
class BoundInput:
    """`entry` bound to the base, the tensors to which it adds rows, and notes: parts that the config declares
    but the file lacks, and effects of the adapter's variant on the result.
    """

    entry: WeightedAdapter
    bound: BoundAdapter
    rows: RowCounts
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.entry.label

    @property
    def weight(self) -> float:
        return self.entry.weight

    @property
    def adapter(self) -> Adapter:
        return self.bound.adapter

    @property
    def module_map(self) -> ModuleMap:
        return self.bound.module_map

    @property
    def whole_weights(self) -> BoundInput:
        """The input with only its whole weights, without modules."""
        bound = replace(self.bound, module_map=replace(self.module_map, placed=()))
        return replace(self, bound=bound)


@dataclass(frozen=True, slots=True)
class BoundInputs:
    """All inputs of a merge, in their order, and the base, with layers replicated as the inputs declare."""

    inputs: tuple[BoundInput, ...]
    checkpoint: HfCheckpoint

    @property
    def rows(self) -> RowCounts:
        """The rows of the tensors that grow."""
        return {tensor: count for own in self.inputs for tensor, count in own.rows.items()}

    @property
    def notes(self) -> Iterator[str]:
        """The notes of all inputs."""
        for own in self.inputs:
            yield from own.notes
            if own.rows:
                rows = max(own.rows.values())
                yield f"the result has a vocabulary of {rows:,}: use {own.label}'s tokenizer with it"


def bind_inputs(
    entries: Sequence[WeightedAdapter],
    checkpoint: HfCheckpoint,
    base: BaseRecord,
    *,
    resize_vocab: bool,
    other_base: bool = False,
) -> BoundInputs:
    """Binds the adapters to the checkpoint with the record `base`. `other_base` allows adapters of another
    base.

    Raises `CheckFailed`, and `Unsupported`, for example if one of several inputs extends the vocabulary.
    """
    shapes = {
        name: TensorShape(dtype=info.dtype, shape=info.shape) for name, info in checkpoint.tensors.items()
    }
    stored = base.model_copy(update={"tensors": shapes})
    bound = [(entry, bind(entry.adapter, stored)) for entry in entries]
    if any(own.layers or own.unbound for _, own in bound):
        checkpoint = replicate_layers(checkpoint, [(entry.label, own) for entry, own in bound])
    each = tuple(
        _require(entry, own, checkpoint, base, resize_vocab=resize_vocab, other_base=other_base)
        for entry, own in bound
    )
    for own in each:
        if own.rows:
            check_single_input(own.label, own.weight, len(each))
    return BoundInputs(each, checkpoint)


def _require(
    entry: WeightedAdapter,
    bound: BoundAdapter,
    checkpoint: HfCheckpoint,
    base: BaseRecord,
    *,
    resize_vocab: bool,
    other_base: bool,
) -> BoundInput:
    """Returns the input; raises an error unless it can be merged into `checkpoint`."""
    require_complete(entry.label, bound)
    rows = new_rows(entry.label, bound.module_map, checkpoint, resize_vocab)
    require_places(entry.label, bound, checkpoint)
    require_shapes(entry.label, bound, checkpoint, rows)
    of_base = check_base(entry, base, checkpoint.folder, other_base)
    of_classes = orientation_notes(entry.label, bound.module_map)
    of_variant = require_lora(entry.label, bound, bound.variant, rows) if bound.variant else ()
    report = check(bound.adapter, bound.base, bound.adapter.config.base_name, bound=bound)
    if report.is_blocked:
        raise CheckFailed(f"{entry.label}: {report.sentence()}")
    notes = (f"{entry.label}: {found.reason}" for found in report.findings if found.code in _NOTED_CODES)
    return BoundInput(entry, bound, rows, (*notes, *of_variant, *of_base, *of_classes))
