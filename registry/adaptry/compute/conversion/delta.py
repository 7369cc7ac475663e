"""The update of one weight by a method other than a plain LoRA: as a dense matrix, and as factors if it has
them.

The update is the changed weight minus the base's weight, in float32. If the base's values do not matter, it
is the change of a zero weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.adapters.methods.method import Method
from adaptry.adapters.methods.replaced_weight import after_replacement
from adaptry.adapters.spec import ExtraWeight
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.conversion.weight_deltas import ChangedWeight, sides_of
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import AdapterTensors
    from adaptry.compute.tensors.lowrank import Factors


@dataclass(frozen=True, slots=True)
class MethodDeltas:
    """The updates of one adapter by weight, computed on demand."""

    parent: ParentAdapter
    base: ConversionBase | None
    sides: Mapping[str, tuple[int, int]]

    def dense(self, changed: ChangedWeight) -> Tensor:
        """Δ [site.fan_out, site.width] in float32. Raises `InvalidWeights` if the tensors do not fit."""
        import torch

        method = METHODS[self.parent.adapter.spec.method]
        before = self._before(changed) if needs_base_weights(self.parent) else torch.zeros(changed.shape)
        try:
            after = self._after(method, before, changed)
        except (LookupError, RuntimeError, ValueError) as error:  # torch's message
            raise InvalidWeights(
                f"the tensors of {self.parent.label} for {changed.module.path} do not fit its weight"
                f" ({error});"
                " check the adapter against its base"
            ) from error
        from adaptry.compute.lazy_adapters.rounding import check_values

        found = changed.matrix(after - before)
        return check_values(found, f"{self.parent.label}: the update of {changed.module.path}")

    def factors(self, changed: ChangedWeight) -> Factors:
        """Δ as float32 factors, for a method that has them."""
        from adaptry.compute.tensors.lowrank import Factors

        factored = METHODS[self.parent.adapter.spec.method].factors
        assert factored is not None
        up, down = factored(self._parts(changed), *changed.sides)
        return Factors(down.T, up.T) if changed.is_table else Factors(up, down)

    def _before(self, changed: ChangedWeight) -> Tensor:
        """The weight that is updated: the adapter's own copy if it has one, else the base's."""
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        adapter, own = self.parent.adapter, own_weight(self.parent, changed)
        if own is not None:
            return as_tensor(adapter.tensor_bytes(own.tensor), adapter.tensors[own.tensor]).float()
        assert self.base is not None and changed.tensor is not None
        return self.base.read_tensor(changed.tensor).float()

    def _after(self, method: Method, before: Tensor, changed: ChangedWeight) -> Tensor:
        assert method.weight is not None
        if method.base_at_load is None or own_weight(self.parent, changed) is None:
            return method.weight(before, self._parts(changed))
        assert self.base is not None and changed.tensor is not None
        stored = self.base.read_tensor(changed.tensor).float()
        return after_replacement(
            method.base_at_load, before, stored, method.weight(stored, self._parts(changed))
        )

    def _parts(self, changed: ChangedWeight) -> AdapterTensors:
        from adaptry.compute.tensors.adapter_tensors import DTYPES, AdapterTensors

        def read_bias() -> Tensor | None:
            has_files = self.base is not None and self.base.checkpoint is not None
            return self.base.read_tensor(changed.bias) if self.base and has_files and changed.bias else None

        return AdapterTensors(
            self.parent.adapter,
            changed.module,
            changed.orientation,
            read_bias,
            self.sides,
            DTYPES[changed.dtype],
        )


def open_method_deltas(
    parent: ParentAdapter, changes: tuple[ChangedWeight, ...], base: ConversionBase | None
) -> MethodDeltas:
    return MethodDeltas(parent, base, sides_of(changes))


def is_factored(parent: ParentAdapter) -> bool:
    """Whether the adapter's updates are exactly factors on every base."""
    return _method(parent).factors is not None and not needs_base_weights(parent)


def needs_base_weights(parent: ParentAdapter) -> bool:
    """Whether the adapter's updates depend on the values of the base's weights."""
    return _method(parent).needs_base_for(parent.adapter.config)


def known_rank(parent: ParentAdapter, changed: ChangedWeight) -> int | None:
    """The maximum rank of an update, if its method has one."""
    method, config = _method(parent), parent.adapter.config
    maximum = min(changed.site.fan_out, changed.site.width)
    if method.name == "lora":
        # The part that the initialisation removed has the rank of the trained part; a DoRA scales whole rows.
        variant = lora_variant(config)
        is_whole = variant.is_dora or variant.removed is None
        return None if is_whole else min(2 * changed.module.rank, maximum)
    rank = method.lora_rank(changed.module, config) if method.lora_form == "given_base" else None
    return None if rank is None else min(rank, maximum)


def own_weight(parent: ParentAdapter, changed: ChangedWeight) -> ExtraWeight | None:
    """The whole weight that the adapter has for a module that it also updates, as PEFT saves embeddings."""
    return parent.adapter.spec.replacement_of(f"{changed.module.path}.weight")


def _method(parent: ParentAdapter) -> Method:
    return METHODS[parent.adapter.spec.method]
