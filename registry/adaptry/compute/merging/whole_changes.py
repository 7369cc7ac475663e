"""Changes of a whole tensor, for everything but plain LoRAs: a tensor is read into memory, changed and
written.

Each change takes the base's weight and returns a new one with the same shape and dtype. Several changes of
one weight are each computed from the base's values, and their differences are summed in float32, so the
result does not depend on their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.method import ChangeFunction
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.merging.lora_delta import LoraDelta

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import ReadBias

Sides = Mapping[str, tuple[int, int]]
"""(outputs, inputs) of every matrix an adapter changes, by its module's path."""


class WholeChange(Protocol):
    """A change; `weight` is the input's weight (1: as trained)."""

    @property
    def weight(self) -> float: ...

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class MethodChange:
    """A method's change of one weight or bias."""

    adapter: Adapter
    module: ModuleSpec
    orientation: str
    change: ChangeFunction
    weight: float = 1.0
    sides: Sides = field(default_factory=dict)

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.adapter_tensors import AdapterTensors

        parts = AdapterTensors(
            self.adapter, self.module, self.orientation, read_bias, self.sides, stored.dtype
        )
        return self.change(stored, parts)


@dataclass(frozen=True, slots=True)
class StreamedChange:
    """A plain LoRA on a tensor that must be changed as a whole for another reason."""

    update: LoraDelta
    is_transposed: bool
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.adapter_tensors import AdapterTensors

        parts = AdapterTensors(self.update.adapter, self.update.module, "linear", read_bias)
        delta = (parts["B"] @ parts["A"]) * self.update.scale
        return (stored.float() + (delta.T if self.is_transposed else delta)).to(stored.dtype)


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


@dataclass(frozen=True, slots=True)
class ChangeChain:
    """Several changes of one tensor by one adapter, each applied to the result of the previous one."""

    steps: tuple[WholeChange, ...]
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        for step in self.steps:
            stored = step.apply(stored, read_bias)
        return stored


def apply_changes(changes: Sequence[WholeChange], stored: Tensor, read_bias: ReadBias) -> Tensor:
    """The weight after all changes, in its dtype. A single change with weight 1 equals its library's
    exactly.
    """
    match changes:
        case [change] if change.weight == 1.0:
            return change.apply(stored, read_bias)
    wide = stored.float()
    total = wide.clone()
    for change in changes:
        total += change.weight * (change.apply(stored, read_bias).float() - wide)
    return total.to(stored.dtype)
