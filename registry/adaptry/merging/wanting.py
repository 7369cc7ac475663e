"""What a merge wants of each tensor of the base: streamed updates, whole changes, a head of its own.

A plain LoRA on a Linear or Conv1D streams in blocks of rows; everything else changes a tensor as a whole. A tensor that
gets both is changed as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from adaptry.checkpoint import Checkpoint
from adaptry.merging.changes import MethodChange, Replacement, RowReplacement, StreamedChange, WholeChange
from adaptry.merging.fitting import Weighted, check_untying
from adaptry.merging.layout import BasePlace, Update
from adaptry.methods import METHODS
from adaptry.methods.extras import token_rows
from adaptry.naming import is_output_head
from adaptry.placing import Placed, PlacedExtra, Placement


@dataclass(frozen=True, slots=True)
class TensorChanges:
    """What happens to one tensor. `bias`: where the bias beside it lies, for changes that look at it."""

    updates: tuple[Update, ...] = ()
    is_transposed: bool = False
    changes: tuple[WholeChange, ...] = ()
    bias: BasePlace | None = None


class Wanted:
    """Gathers what each input wants, tensor by tensor."""

    def __init__(self) -> None:
        self._tensors: dict[str, TensorChanges] = {}
        self.heads: dict[str, TensorChanges] = {}
        """By the embedding that an untied head starts from."""
        self.is_untied = False

    def of(self, tensor: str) -> TensorChanges:
        return self._tensors.get(tensor, TensorChanges())

    def add(self, entry: Weighted, placement: Placement, checkpoint: Checkpoint) -> None:
        for placed in placement.placed:
            target = self._tensors
            if placed.tied and placed.module.kind == "linear":
                check_untying(entry, checkpoint)
                self.is_untied = True
                target = self._tensors if is_output_head(placed.tensor) else self.heads
            before = target.get(placed.tensor, TensorChanges())
            target[placed.tensor] = _with(before, entry, placed, checkpoint)
            for name, biased in _bias_changes(entry, placed, checkpoint):
                was = self.of(name)
                self._tensors[name] = replace(was, changes=(*was.changes, biased))
        for extra in placement.extras:
            self._add_extra(entry, extra)

    def _add_extra(self, entry: Weighted, extra: PlacedExtra) -> None:
        """A full weight; one for a tied head gives the result a head of its own."""
        kind, tensor = extra.extra.kind, extra.extra.tensor
        change: WholeChange = Replacement(entry.adapter, tensor, entry.weight)
        if kind == "token_rows":
            rows = token_rows(entry.adapter.config, extra.extra.target)
            change = RowReplacement(entry.adapter, tensor, rows, entry.weight)
        target = self._tensors
        if extra.tied and kind != "token_rows" and is_output_head(extra.extra.target):
            self.is_untied = True
            target = self._tensors if is_output_head(extra.tensor) else self.heads
        was = target.get(extra.tensor, TensorChanges())
        target[extra.tensor] = replace(was, changes=(*was.changes, change))


def is_streamed(entry: Weighted, placed: Placed) -> bool:
    """Whether an update is a plain LoRA on a matrix, which the lanes take in blocks."""
    return (
        entry.adapter.spec.method == "lora"
        and placed.module.kind == "linear"
        and placed.orientation in ("linear", "conv1d")
        and placed.module.tensors.keys() == {"A", "B"}
        and not METHODS["lora"].needs_base_for(entry.adapter.config)
    )


def _with(was: TensorChanges, entry: Weighted, placed: Placed, checkpoint: Checkpoint) -> TensorChanges:
    if is_streamed(entry, placed):
        update = Update(entry.adapter, placed.module, placed.module.scale * entry.weight)
        is_transposed = placed.orientation == "conv1d"
        if not was.changes:
            return replace(was, updates=(*was.updates, update), is_transposed=is_transposed)
        streamed = StreamedChange(update, is_transposed)
        return replace(was, changes=(*was.changes, streamed))
    method = METHODS[entry.adapter.spec.method]
    if method.weight is None:
        return was
    change = MethodChange(entry.adapter, placed.module, placed.orientation, method.weight, entry.weight)
    earlier = tuple(StreamedChange(update, was.is_transposed) for update in was.updates)
    bias = _bias_place(placed, checkpoint)
    return TensorChanges(changes=(*was.changes, *earlier, change), bias=bias or was.bias)


def _bias_changes(
    entry: Weighted, placed: Placed, checkpoint: Checkpoint
) -> Iterator[tuple[str, WholeChange]]:
    method = METHODS[entry.adapter.spec.method]
    name = _bias_name(placed)
    if method.bias is not None and name in checkpoint.tensors:
        yield name, MethodChange(entry.adapter, placed.module, placed.orientation, method.bias, entry.weight)


def _bias_name(placed: Placed) -> str:
    stem, _, last = placed.tensor.rpartition(".")
    return f"{stem}.in_proj_bias" if last == "in_proj_weight" else f"{stem}.bias"


def _bias_place(placed: Placed, checkpoint: Checkpoint) -> BasePlace | None:
    name = _bias_name(placed)
    if name not in checkpoint.tensors:
        return None
    return BasePlace(checkpoint.shard_of[name], checkpoint.tensors[name])
