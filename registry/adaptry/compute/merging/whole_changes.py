"""Changes of a tensor by everything but plain LoRAs, applied to the whole tensor or to blocks of its rows.

Each change takes the base's weight and returns a new one with the same shape and dtype. Several changes of
one weight are each computed from the base's values, and their differences are summed in float32, so the
result does not depend on their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.method import BaseAtLoad, ChangeFunction
from adaptry.adapters.methods.replaced_weight import after_replacement
from adaptry.adapters.methods.row_change import RowChange, RowChangeFunction
from adaptry.adapters.methods.row_formula import FormulaFunction
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.merging.lora_delta import LoraDelta
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import AdapterTensors, ReadBias

Sides = Mapping[str, tuple[int, int]]
"""(outputs, inputs) of every matrix an adapter changes, by its module's path."""


class WholeChange(Protocol):
    """A change; `weight` is the input's weight (1: as trained)."""

    @property
    def weight(self) -> float: ...

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor: ...

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        """The change as a change of blocks of rows; None if it needs the whole weight in memory."""


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight's shape, and the dtype in which its rows are passed to a change."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class MethodChange:
    """A method's change of one weight or bias."""

    adapter: Adapter
    module: ModuleSpec
    orientation: str
    change: ChangeFunction
    weight: float = 1.0
    sides: Sides = field(default_factory=dict)
    rows: RowChangeFunction | None = None
    formula: FormulaFunction | None = None

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        return self.change(stored, self._parts(stored.dtype, read_bias))

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        return None if self.rows is None else self.rows(self._parts(weight.dtype, read_bias), weight.shape)

    def _parts(self, dtype: torch.dtype, read_bias: ReadBias) -> AdapterTensors:
        from adaptry.compute.tensors.adapter_tensors import AdapterTensors

        return AdapterTensors(self.adapter, self.module, self.orientation, read_bias, self.sides, dtype)


@dataclass(frozen=True, slots=True)
class StreamedChange:
    """A plain LoRA on a tensor that must be changed as a whole for another reason."""

    update: LoraDelta
    is_transposed: bool
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        parts = self._parts(read_bias)
        delta = (parts["B"] @ parts["A"]) * self.update.scale
        return (stored.float() + (delta.T if self.is_transposed else delta)).to(stored.dtype)

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        parts = self._parts(read_bias)
        up, down = parts["B"], parts["A"]
        if self.is_transposed or (len(up), down.shape[1]) != weight.shape:
            return None

        def apply(stored: Tensor, first: int) -> Tensor:
            delta = (up[first : first + len(stored)] @ down) * self.update.scale
            return (stored.float() + delta).to(stored.dtype)

        return RowChange(apply, len(down))

    def _parts(self, read_bias: ReadBias) -> AdapterTensors:
        from adaptry.compute.tensors.adapter_tensors import AdapterTensors

        return AdapterTensors(self.update.adapter, self.update.module, "linear", read_bias)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A weight that replaces the base's."""

    adapter: Adapter
    tensor: str
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        found = as_tensor(self.adapter.tensor_bytes(self.tensor), self.adapter.tensors[self.tensor])
        return found.to(stored.dtype)

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        info = self.adapter.tensors[self.tensor]
        if info.shape != weight.shape or not info.numel:
            return None
        row = info.size // info.shape[0]

        def apply(stored: Tensor, first: int) -> Tensor:
            part = replace(info, shape=tuple(stored.shape), start=info.start + first * row)
            data = self.adapter.content.read(self.adapter.format.weights, part.start, len(stored) * row)
            return as_tensor(data, part).to(stored.dtype)

        return RowChange(apply)


@dataclass(frozen=True, slots=True)
class RowReplacement:
    """Rows of an embedding that replace the base's, in the config's order of indices."""

    adapter: Adapter
    tensor: str
    rows: tuple[int, ...]
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        found = as_tensor(self.adapter.tensor_bytes(self.tensor), self.adapter.tensors[self.tensor])
        result = stored.clone()
        result[list(self.rows)] = found.to(stored.dtype)
        return result

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        return None


@dataclass(frozen=True, slots=True)
class ChangeFromBase:
    """A method's change next to a weight that replaces the base's, for methods that compute a part from the
    base's weight (`Method.base_at_load`).
    """

    replacement: Replacement
    change: WholeChange
    base_at_load: BaseAtLoad
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        own, changed = self.replacement.apply(stored, read_bias), self.change.apply(stored, read_bias)
        return after_replacement(self.base_at_load, own, stored, changed)

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        return None


@dataclass(frozen=True, slots=True)
class ChangeChain:
    """Several changes of one tensor by one adapter, each applied to the result of the previous one."""

    steps: tuple[WholeChange, ...]
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        for step in self.steps:
            stored = step.apply(stored, read_bias)
        return stored

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        steps = row_changes(self.steps, weight, read_bias)
        if steps is None:
            return None

        def apply(stored: Tensor, first: int) -> Tensor:
            for step in steps:
                stored = step.apply(stored, first)
            return stored

        return joined_rows(steps, apply)


def apply_changes(changes: Sequence[WholeChange], stored: Tensor, read_bias: ReadBias) -> Tensor:
    """The weight after all changes, in its dtype. A single change with weight 1 equals its library's
    exactly.
    """
    return _summed(stored, [(each.weight, partial(each.apply, read_bias=read_bias)) for each in changes])


def changes_by_rows(
    changes: Sequence[WholeChange], weight: StoredWeight, read_bias: ReadBias
) -> RowChange | None:
    """`apply_changes` of blocks of rows; None if a change needs the whole weight."""
    each = row_changes(changes, weight, read_bias)
    if each is None:
        return None
    weights = [change.weight for change in changes]

    def apply(stored: Tensor, first: int) -> Tensor:
        return _summed(stored, list(zip(weights, (change.at(first) for change in each), strict=True)))

    return joined_rows(each, apply)


def row_changes(
    changes: Sequence[WholeChange], weight: StoredWeight, read_bias: ReadBias
) -> list[RowChange] | None:
    """Each change by rows; None if one needs the whole weight."""
    found: list[RowChange] = []
    for change in changes:
        own = change.by_rows(weight, read_bias)
        if own is None:
            return None
        found.append(own)
    return found


def joined_rows(each: Sequence[RowChange], apply: Callable[[Tensor, int], Tensor]) -> RowChange:
    """The function `apply`, which makes these changes, for blocks that suit all of them."""
    return RowChange(apply, max(change.depth for change in each), math.lcm(*(change.unit for change in each)))


def _summed(stored: Tensor, changes: Sequence[tuple[float, Callable[[Tensor], Tensor]]]) -> Tensor:
    match changes:
        case [(1.0, change)]:
            return change(stored)
    wide = stored.float()
    total = wide.clone()
    for share, change in changes:
        total += share * (change(stored).float() - wide)
    return total.to(stored.dtype)
