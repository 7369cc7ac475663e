"""Biases that an adapter's method changes. Factors cannot represent them, so they are written completely.

PEFT saves complete biases of adapted modules with a LoRA (`bias: lora_only`). They belong to one base, and
not every engine supports them; with `drop_bias` the LoRA is written without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.conversion.weight_deltas import ChangedWeight
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, ParentAdapter
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BiasDeltas:
    """The complete biases of a result, in the order of their modules' paths."""

    parent: ParentAdapter
    base: ConversionBase
    changes: tuple[ChangedWeight, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(_name(changed) for changed in self.changes)

    def compute(self) -> Iterator[ComputedModule]:
        """Each bias [out] in float32, from the adapter's own bias if it has one, else from the base's. An
        unchanged bias of the base is left out.
        """
        for changed in self.changes:
            own = self._own(changed)
            before = self._base(changed) if own is None else own
            after = self._after(changed, before)
            if own is not None or not after.equal(before):
                yield ComputedModule(f"{changed.module.path}.bias", {_name(changed): after})

    def _own(self, changed: ChangedWeight) -> Tensor | None:
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        adapter = self.parent.adapter
        own = adapter.spec.replacement_of(f"{changed.module.path}.bias")
        return (
            as_tensor(adapter.tensor_bytes(own.tensor), adapter.tensors[own.tensor]).float() if own else None
        )

    def _base(self, changed: ChangedWeight) -> Tensor:
        assert changed.bias is not None
        return self.base.read_tensor(changed.bias).float()

    def _after(self, changed: ChangedWeight, before: Tensor) -> Tensor:
        from adaptry.compute.tensors.adapter_tensors import AdapterTensors

        adapter, base = self.parent.adapter, self.base
        weight, change = changed.tensor, METHODS[adapter.spec.method].bias
        assert weight is not None and change is not None
        parts = AdapterTensors(
            adapter, changed.module, changed.orientation, lambda: base.read_tensor(weight).float()
        )
        return change(before, parts).contiguous()


def bias_deltas(
    parent: ParentAdapter, changes: Sequence[ChangedWeight], base: ConversionBase | None
) -> BiasDeltas | None:
    """The changed biases; None if none changes. Raises `CheckFailed` if the base's weights are needed and
    missing.
    """
    if not changes_biases(parent):
        return None
    if base is None or base.checkpoint is None:
        raise CheckFailed(
            f"{parent.label} changes biases, which are computed from the base's: pass the base with"
            " --base, or --drop-bias to leave them out"
        )
    method = METHODS[parent.adapter.spec.method]
    found = tuple(changed for changed in changes if changed.bias and method.changes_bias(changed.module))
    return BiasDeltas(parent, base, found) if found else None


def changes_biases(parent: ParentAdapter) -> bool:
    """Whether the adapter's method changes the bias of a module that has one."""
    spec = parent.adapter.spec
    method = METHODS[spec.method]
    return method.bias is not None and any(method.changes_bias(module) for module in spec.modules)


def _name(changed: ChangedWeight) -> str:
    return f"{PREFIX}{changed.module.path}.base_layer.bias"
