"""The changes of each tensor of the base: streamed updates, whole changes, a separate head.

A plain LoRA on a Linear or Conv1D is streamed in blocks of rows; everything else changes a tensor as a whole.
A tensor with both is changed as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.lora_merge import merge_expert
from adaptry.adapters.methods.method import Method
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.compute.merging.bound_input import BoundInput
from adaptry.compute.merging.combined_changes import PlacedChange
from adaptry.compute.merging.layout import BaseTensor
from adaptry.compute.merging.lora_delta import LoraDelta
from adaptry.compute.merging.tied_embeddings import SidedInput, TiedSide, TiedSides, sides_of_module
from adaptry.compute.merging.whole_changes import (
    ChangeChain,
    ChangeFromBase,
    MethodChange,
    Replacement,
    RowReplacement,
    Sides,
    StreamedChange,
    WholeChange,
)
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TensorChanges:
    """The changes of one tensor. `bias` is the position of its bias (for a bias: of its weight), for changes
    that need it.
    """

    updates: tuple[LoraDelta, ...] = ()
    is_transposed: bool = False
    changes: tuple[WholeChange, ...] = ()
    bias: BaseTensor | None = None


class ChangeSet:
    """Collects the changes of all inputs by tensor, separately for the two sides of a tied embedding."""

    def __init__(self, checkpoint: HfCheckpoint, sides: TiedSides) -> None:
        self._checkpoint = checkpoint
        self._sides = sides
        self._changes: dict[TiedSide, TensorChanges] = {}

    @property
    def is_untied(self) -> bool:
        return self._sides.is_untied

    def for_tensor(self, tensor: str) -> TensorChanges:
        return self._changes.get(self._sides.stored_side(tensor), TensorChanges())

    def added_tensors(self, tensor: str) -> Iterator[tuple[str, TensorChanges]]:
        """Tensors that the result gets in addition to the base's `tensor`, with its values, and their
        changes.
        """
        for side in self._sides.added_sides(tensor):
            is_bias = side.name.endswith(".bias")  # like the bias to which it was tied
            yield side.name, self.for_tensor(tensor) if is_bias else self._changes.get(side, TensorChanges())

    def add(self, sided: SidedInput) -> None:
        """Adds an input, in PEFT's order: replacements of a weight and of its rows, then updates. PEFT trains
        rows of an adapted weight only in a head that is tied to the embedding, inside of its update.
        """
        steps: dict[TiedSide, list[WholeChange]] = {}
        for extra, sides in sided.extras:
            for side in sides:
                steps.setdefault(side, []).append(_replacing(sided.entry, extra))
        self._add_modules(sided, steps)
        for side, own in steps.items():
            self._changes[side] = _joined(self._changes.get(side, TensorChanges()), own, sided.entry)

    def add_combined(self, changes: Iterable[PlacedChange]) -> None:
        """Adds one combined change for each updated weight."""
        for each in changes:
            for side in sides_of_module(each.entry, each.target, self._sides):
                was = self._changes.get(side, TensorChanges())
                self._changes[side] = replace(was, changes=(*was.changes, each.change))

    def _add_modules(self, sided: SidedInput, steps: dict[TiedSide, list[WholeChange]]) -> None:
        entry = sided.entry
        method = METHODS[entry.adapter.spec.method]
        sides = _sides(entry.module_map, self._checkpoint)
        for target, changed in sided.modules:
            if method.weight is not None:
                change: WholeChange = MethodChange(
                    entry.adapter,
                    target.module,
                    target.stored_orientation,
                    partial(merge_expert, expert=target.expert) if target.expert else method.weight,
                    entry.weight,
                    sides,
                    None if target.expert else method.rows,
                    None if target.expert else method.formula,
                )
                if target.is_plain:
                    update = LoraDelta(entry.adapter, target.module, target.module.scale)
                    change = StreamedChange(update, target.orientation == "conv1d", entry.weight)
                for side in changed:
                    _append(steps.setdefault(side, []), change, method)
                    self._note_bias(side, target)
            for name, biased in _bias_changes(entry, target, self._checkpoint, sides):
                side = self._sides.stored_side(name)
                steps.setdefault(side, []).append(biased)
                self._note_beside(side, target.tensor)

    def _note_bias(self, side: TiedSide, target: TargetTensor) -> None:
        if target.bias in self._checkpoint.tensors:
            self._note_beside(side, target.bias)

    def _note_beside(self, side: TiedSide, tensor: str) -> None:
        place = BaseTensor(self._checkpoint.shard_of[tensor], self._checkpoint.tensors[tensor])
        self._changes[side] = replace(self._changes.get(side, TensorChanges()), bias=place)


def _replacing(entry: BoundInput, extra: ExtraTarget) -> WholeChange:
    tensor = extra.extra.tensor
    if extra.extra.kind == "token_rows":
        return RowReplacement(entry.adapter, tensor, extra.rows, entry.weight)
    return Replacement(entry.adapter, tensor, entry.weight)


def _append(steps: list[WholeChange], change: WholeChange, method: Method) -> None:
    """Adds a method's change of a weight, which a previous step may have replaced."""
    match steps:
        case [*_, Replacement() as own] if method.base_at_load is not None:
            steps[-1] = ChangeFromBase(own, change, method.base_at_load, change.weight)
        case _:
            steps.append(change)


def _joined(was: TensorChanges, steps: list[WholeChange], entry: BoundInput) -> TensorChanges:
    """The changes `was` plus one adapter's steps: streamed if all steps can be, else as one whole change."""
    streamed = [step for step in steps if isinstance(step, StreamedChange)]
    if len(streamed) == len(steps) and not was.changes:
        updates = [replace(step.update, scale=step.update.scale * step.weight) for step in streamed]
        return replace(was, updates=(*was.updates, *updates), is_transposed=streamed[0].is_transposed)
    earlier = tuple(StreamedChange(update, was.is_transposed) for update in was.updates)
    change = steps[0] if len(steps) == 1 else ChangeChain(tuple(steps), entry.weight)
    return TensorChanges(changes=(*was.changes, *earlier, change), bias=was.bias)


def _sides(module_map: ModuleMap, checkpoint: HfCheckpoint) -> Sides:
    sides: dict[str, tuple[int, int]] = {}
    for target in module_map.placed:
        shape = checkpoint.tensors[target.tensor].shape
        if len(shape) > 1:
            first, rest = shape[0], math.prod(shape[1:])
            is_transposed = target.orientation in ("conv1d", "embedding")
            sides[target.module.path] = (rest, first) if is_transposed else (first, rest)
    return sides


def _bias_changes(
    entry: BoundInput, target: TargetTensor, checkpoint: HfCheckpoint, sides: Sides
) -> Iterator[tuple[str, WholeChange]]:
    method = METHODS[entry.adapter.spec.method]
    has_bias = target.bias in checkpoint.tensors
    if method.bias is not None and method.changes_bias(target.module) and has_bias:
        change = MethodChange(
            entry.adapter,
            target.module,
            target.orientation,
            method.bias,
            entry.weight,
            sides,
            formula=method.bias_formula,
        )
        yield target.bias, change
