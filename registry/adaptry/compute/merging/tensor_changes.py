"""What a merge wants of each tensor of the base: streamed updates, whole changes, a head of its own.

A plain LoRA on a Linear or Conv1D streams in blocks of rows; everything else changes a tensor as a whole. A tensor that
gets both is changed as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from adaptry.adapters.methods import METHODS, lora_config
from adaptry.adapters.methods.extras import token_rows
from adaptry.adapters.methods.lora_merge import merge_expert
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.compute.merging.combined_changes import PlacedChange
from adaptry.compute.merging.fitting import WeightedAdapter
from adaptry.compute.merging.layout import BaseTensor, LoraDelta
from adaptry.compute.merging.lora_fitting import stored_orientation
from adaptry.compute.merging.tied_embeddings import TiedSide, TiedSides, sides_of_extra, sides_of_module
from adaptry.compute.merging.whole_changes import (
    ChangeChain,
    MethodChange,
    Replacement,
    RowReplacement,
    Sides,
    StreamedChange,
    WholeChange,
)


@dataclass(frozen=True, slots=True)
class TensorChanges:
    """What happens to one tensor. `bias`: where the bias beside it lies (beside a bias, its weight), for changes that
    look at it."""

    updates: tuple[LoraDelta, ...] = ()
    is_transposed: bool = False
    changes: tuple[WholeChange, ...] = ()
    bias: BaseTensor | None = None


class ChangeSet:
    """Gathers what each input wants, tensor by tensor; the two ends of a tied embedding apart."""

    def __init__(self, checkpoint: HfCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._ends = TiedSides(checkpoint)
        self._wanted: dict[TiedSide, TensorChanges] = {}

    @property
    def is_untied(self) -> bool:
        return self._ends.is_untied

    def for_tensor(self, tensor: str) -> TensorChanges:
        return self._wanted.get(self._ends.stored_side(tensor), TensorChanges())

    def added_tensors(self, tensor: str) -> Iterator[tuple[str, TensorChanges]]:
        """Names of what the result gets beside the base's `tensor`, with its values, and what happens to each."""
        for end in self._ends.added_sides(tensor):
            is_bias = end.name.endswith(".bias")  # it goes with the one that it was tied to
            yield end.name, self.for_tensor(tensor) if is_bias else self._wanted.get(end, TensorChanges())

    def add(self, entry: WeightedAdapter, placement: ModuleMap) -> None:
        """In PEFT's order: what replaces a weight, then what changes it, then rows of it."""
        steps: dict[TiedSide, list[WholeChange]] = {}
        for is_rows in (False, True):
            for extra in placement.extras:
                if (extra.extra.kind == "token_rows") is is_rows:
                    for end in sides_of_extra(entry, extra, placement, self._ends):
                        steps.setdefault(end, []).append(_replacing(entry, extra))
            if not is_rows:
                self._add_modules(entry, placement, steps)
        for end, own in steps.items():
            self._wanted[end] = _joined(self._wanted.get(end, TensorChanges()), own, entry)

    def add_combined(
        self, inputs: Iterable[tuple[WeightedAdapter, ModuleMap]], changes: Iterable[PlacedChange]
    ) -> None:
        """Each input's whole weights, and one change of each weight that any of them updates."""
        for entry, placement in inputs:
            self.add(entry, replace(placement, placed=()))
        for each in changes:
            for end in sides_of_module(each.entry, each.placed, each.placement, self._ends):
                was = self._wanted.get(end, TensorChanges())
                self._wanted[end] = replace(was, changes=(*was.changes, each.change))

    def _add_modules(
        self, entry: WeightedAdapter, placement: ModuleMap, steps: dict[TiedSide, list[WholeChange]]
    ) -> None:
        method = METHODS[entry.adapter.spec.method]
        sides = _sides(placement, self._checkpoint)
        for placed in placement.placed:
            if method.weight is not None:
                change: WholeChange = MethodChange(
                    entry.adapter,
                    placed.module,
                    stored_orientation(placed, self._checkpoint, entry.adapter.spec),
                    partial(merge_expert, expert=placed.expert) if placed.expert else method.weight,
                    entry.weight,
                    sides,
                )
                if is_streamed(entry, placed):
                    update = LoraDelta(entry.adapter, placed.module, placed.module.scale)
                    change = StreamedChange(update, placed.orientation == "conv1d", entry.weight)
                for end in sides_of_module(entry, placed, placement, self._ends):
                    steps.setdefault(end, []).append(change)
                    self._note_bias(end, placed)
            for name, biased in _bias_changes(entry, placed, self._checkpoint, sides):
                end = self._ends.stored_side(name)
                steps.setdefault(end, []).append(biased)
                self._note_beside(end, placed.tensor)

    def _note_bias(self, end: TiedSide, placed: TargetTensor) -> None:
        name = bias_name(placed)
        if name in self._checkpoint.tensors:
            self._note_beside(end, name)

    def _note_beside(self, end: TiedSide, tensor: str) -> None:
        place = BaseTensor(self._checkpoint.shard_of[tensor], self._checkpoint.tensors[tensor])
        self._wanted[end] = replace(self._wanted.get(end, TensorChanges()), bias=place)


def is_streamed(entry: WeightedAdapter, placed: TargetTensor) -> bool:
    """Whether an update is a plain LoRA on a matrix, which the lanes take in blocks."""
    return (
        entry.adapter.spec.method == "lora"
        and placed.orientation in ("linear", "conv1d")
        and lora_config.is_plain_update(entry.adapter.config, placed.module)
    )


def _replacing(entry: WeightedAdapter, extra: ExtraTarget) -> WholeChange:
    tensor = extra.extra.tensor
    if extra.extra.kind == "token_rows":
        rows = token_rows(entry.adapter.config, extra.extra.target)
        return RowReplacement(entry.adapter, tensor, rows, entry.weight)
    return Replacement(entry.adapter, tensor, entry.weight)


def _joined(was: TensorChanges, steps: list[WholeChange], entry: WeightedAdapter) -> TensorChanges:
    """`was` and one adapter's steps: streamed where all of them can be, else one whole change."""
    streamed = [step for step in steps if isinstance(step, StreamedChange)]
    if len(streamed) == len(steps) and not was.changes:
        updates = [replace(step.update, scale=step.update.scale * step.weight) for step in streamed]
        return replace(was, updates=(*was.updates, *updates), is_transposed=streamed[0].is_transposed)
    earlier = tuple(StreamedChange(update, was.is_transposed) for update in was.updates)
    change = steps[0] if len(steps) == 1 else ChangeChain(tuple(steps), entry.weight)
    return TensorChanges(changes=(*was.changes, *earlier, change), bias=was.bias)


def _sides(placement: ModuleMap, checkpoint: HfCheckpoint) -> Sides:
    sides: dict[str, tuple[int, int]] = {}
    for placed in placement.placed:
        shape = checkpoint.tensors[placed.tensor].shape
        if len(shape) > 1:
            first, rest = shape[0], math.prod(shape[1:])
            is_turned = placed.orientation in ("conv1d", "embedding")
            sides[placed.module.path] = (rest, first) if is_turned else (first, rest)
    return sides


def _bias_changes(
    entry: WeightedAdapter, placed: TargetTensor, checkpoint: HfCheckpoint, sides: Sides
) -> Iterator[tuple[str, WholeChange]]:
    method = METHODS[entry.adapter.spec.method]
    name = bias_name(placed)
    if method.bias is not None and method.changes_bias(placed.module) and name in checkpoint.tensors:
        change = MethodChange(
            entry.adapter, placed.module, placed.orientation, method.bias, entry.weight, sides
        )
        yield name, change


def bias_name(placed: TargetTensor) -> str:
    stem, _, last = placed.tensor.rpartition(".")
    return f"{stem}.in_proj_bias" if last == "in_proj_weight" else f"{stem}.bias"
