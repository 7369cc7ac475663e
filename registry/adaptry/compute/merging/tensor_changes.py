"""What a merge wants of each tensor of the base: streamed updates, whole changes, a head of its own.

A plain LoRA on a Linear or Conv1D streams in blocks of rows; everything else changes a tensor as a whole. A
tensor that gets both is changed as a whole.
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
from adaptry.compute.merging.fitting import PLAIN as STREAMED
from adaptry.compute.merging.fitting import WeightedAdapter
from adaptry.compute.merging.layout import BaseTensor
from adaptry.compute.merging.lora_delta import LoraDelta
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
    """What happens to one tensor. `bias`: where the bias beside it lies (beside a bias, its weight), for
    changes that look at it.
    """

    updates: tuple[LoraDelta, ...] = ()
    is_transposed: bool = False
    changes: tuple[WholeChange, ...] = ()
    bias: BaseTensor | None = None


class ChangeSet:
    """Gathers what each input wants, tensor by tensor; the two sides of a tied embedding apart."""

    def __init__(self, checkpoint: HfCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._sides = TiedSides(checkpoint)
        self._changes: dict[TiedSide, TensorChanges] = {}

    @property
    def is_untied(self) -> bool:
        return self._sides.is_untied

    def for_tensor(self, tensor: str) -> TensorChanges:
        return self._changes.get(self._sides.stored_side(tensor), TensorChanges())

    def added_tensors(self, tensor: str) -> Iterator[tuple[str, TensorChanges]]:
        """What the result gets beside the base's `tensor`, with its values, and what happens to each."""
        for side in self._sides.added_sides(tensor):
            is_bias = side.name.endswith(".bias")  # it goes with the one that it was tied to
            yield side.name, self.for_tensor(tensor) if is_bias else self._changes.get(side, TensorChanges())

    def add(self, entry: WeightedAdapter, module_map: ModuleMap) -> None:
        """In PEFT's order: what replaces a weight, then what changes it, then rows of it."""
        steps: dict[TiedSide, list[WholeChange]] = {}
        for is_rows in (False, True):
            for extra in module_map.extras:
                if (extra.extra.kind == "token_rows") is is_rows:
                    for side in sides_of_extra(entry, extra, module_map, self._sides):
                        steps.setdefault(side, []).append(_replacing(entry, extra))
            if not is_rows:
                self._add_modules(entry, module_map, steps)
        for side, own in steps.items():
            self._changes[side] = _joined(self._changes.get(side, TensorChanges()), own, entry)

    def add_combined(
        self, inputs: Iterable[tuple[WeightedAdapter, ModuleMap]], changes: Iterable[PlacedChange]
    ) -> None:
        """Each input's whole weights, and one change of each weight that any of them updates."""
        for entry, module_map in inputs:
            self.add(entry, replace(module_map, placed=()))
        for each in changes:
            for side in sides_of_module(each.entry, each.target, each.module_map, self._sides):
                was = self._changes.get(side, TensorChanges())
                self._changes[side] = replace(was, changes=(*was.changes, each.change))

    def _add_modules(
        self, entry: WeightedAdapter, module_map: ModuleMap, steps: dict[TiedSide, list[WholeChange]]
    ) -> None:
        method = METHODS[entry.adapter.spec.method]
        sides = _sides(module_map, self._checkpoint)
        for target in module_map.placed:
            if method.weight is not None:
                change: WholeChange = MethodChange(
                    entry.adapter,
                    target.module,
                    stored_orientation(target, self._checkpoint, entry.adapter.spec),
                    partial(merge_expert, expert=target.expert) if target.expert else method.weight,
                    entry.weight,
                    sides,
                )
                if is_streamed(entry, target):
                    update = LoraDelta(entry.adapter, target.module, target.module.scale)
                    change = StreamedChange(update, target.orientation == "conv1d", entry.weight)
                for side in sides_of_module(entry, target, module_map, self._sides):
                    steps.setdefault(side, []).append(change)
                    self._note_bias(side, target)
            for name, biased in _bias_changes(entry, target, self._checkpoint, sides):
                side = self._sides.stored_side(name)
                steps.setdefault(side, []).append(biased)
                self._note_beside(side, target.tensor)

    def _note_bias(self, side: TiedSide, target: TargetTensor) -> None:
        name = bias_name(target)
        if name in self._checkpoint.tensors:
            self._note_beside(side, name)

    def _note_beside(self, side: TiedSide, tensor: str) -> None:
        place = BaseTensor(self._checkpoint.shard_of[tensor], self._checkpoint.tensors[tensor])
        self._changes[side] = replace(self._changes.get(side, TensorChanges()), bias=place)


def is_streamed(entry: WeightedAdapter, target: TargetTensor) -> bool:
    """Whether an update is a plain LoRA on a matrix, which the kernels take in blocks."""
    return (
        entry.adapter.spec.method == "lora"
        and target.orientation in ("linear", "conv1d")
        and lora_config.is_plain_update(entry.adapter.config, target.module)
        and all(entry.adapter.tensors[name].dtype in STREAMED for name in target.module.tensors.values())
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


def _sides(module_map: ModuleMap, checkpoint: HfCheckpoint) -> Sides:
    sides: dict[str, tuple[int, int]] = {}
    for target in module_map.placed:
        shape = checkpoint.tensors[target.tensor].shape
        if len(shape) > 1:
            first, rest = shape[0], math.prod(shape[1:])
            is_turned = target.orientation in ("conv1d", "embedding")
            sides[target.module.path] = (rest, first) if is_turned else (first, rest)
    return sides


def _bias_changes(
    entry: WeightedAdapter, target: TargetTensor, checkpoint: HfCheckpoint, sides: Sides
) -> Iterator[tuple[str, WholeChange]]:
    method = METHODS[entry.adapter.spec.method]
    name = bias_name(target)
    if method.bias is not None and method.changes_bias(target.module) and name in checkpoint.tensors:
        change = MethodChange(
            entry.adapter, target.module, target.orientation, method.bias, entry.weight, sides
        )
        yield name, change


def bias_name(target: TargetTensor) -> str:
    stem, _, last = target.tensor.rpartition(".")
    return f"{stem}.in_proj_bias" if last == "in_proj_weight" else f"{stem}.bias"
