"""The updates of an adapter of any method that changes weights, weight by weight, for measuring.

An update is factors where the method has them: a plain LoRA, or a method that is exactly one, such as LoHa or
VeRA. Otherwise it is the dense change of the weight, which may need the base's weights (DoRA, IA3, OFT).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.conversion.convert import refuse_unconvertible, refuse_without_weights
from adaptry.compute.conversion.delta import MethodDeltas, is_factored, known_rank, open_method_deltas
from adaptry.compute.conversion.weight_deltas import ChangedWeight, changed_weights
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas, refuse_unclaimed
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.parent_on_base import parent_as_peft_reads
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.errors import Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

MAX_ELEMENTS = 1 << 29
"""Values of the largest update that is measured, as factors or dense: 2 GiB in float32."""


class AdapterUpdates(Protocol):
    """The updates of one adapter. Weights are read on demand."""

    @property
    def parent(self) -> ParentAdapter: ...

    @property
    def modules(self) -> Collection[WeightSite]: ...

    def rank(self, site: WeightSite) -> int:
        """The largest rank that the update can have; for a fused parameter, that of one expert."""

    def update(self, site: WeightSite) -> Factors | Tensor:
        """Factors, or the dense update [fan_out, width] in float32. Raises `InvalidWeights`."""


@dataclass(frozen=True, slots=True)
class LoraUpdates:
    """The updates of a plain LoRA."""

    deltas: AdapterDeltas

    @property
    def parent(self) -> ParentAdapter:
        return self.deltas.parent

    @property
    def modules(self) -> Collection[WeightSite]:
        return self.deltas.modules

    def rank(self, site: WeightSite) -> int:
        return self.deltas.rank(site)

    def update(self, site: WeightSite) -> Factors | Tensor:
        return self.deltas.factors(site)


@dataclass(frozen=True, slots=True)
class MethodUpdates:
    """The updates of another method."""

    deltas: MethodDeltas
    changes: dict[WeightSite, ChangedWeight]

    @property
    def parent(self) -> ParentAdapter:
        return self.deltas.parent

    @property
    def modules(self) -> Collection[WeightSite]:
        return self.changes

    def rank(self, site: WeightSite) -> int:
        maximum = min(site.fan_out, site.width)
        if is_factored(self.parent):
            return min(maximum, self.deltas.factors(self.changes[site]).rank)
        return known_rank(self.parent, self.changes[site]) or maximum

    def update(self, site: WeightSite) -> Factors | Tensor:
        from adaptry.compute.lazy_adapters.rounding import check_values

        changed = self.changes[site]
        if is_factored(self.parent):
            label = f"{self.parent.label}: the update of {site.key}"
            return check_values(self.deltas.factors(changed), label)
        return self.deltas.dense(changed)


def open_updates(parent: ParentAdapter, base: ConversionBase | None = None) -> AdapterUpdates:
    """Opens the updates. Raises `Unsupported` (the method does not change weights, a layout of another tool,
    or a weight that is too large) and `CheckFailed` (the adapter does not fit the base, or needs it), each
    with a remedy.
    """
    parent = parent_as_peft_reads(parent, base.record if base else None)
    if plain_reason(parent.adapter) is None:
        return LoraUpdates(open_adapter_deltas(parent))
    refuse_unconvertible(parent)
    refuse_unclaimed(parent)
    refuse_without_weights(parent, base)
    METHODS[parent.adapter.spec.method].check_installed()
    changes = changed_weights(parent, base)
    _refuse_large(parent, changes)
    return MethodUpdates(
        open_method_deltas(parent, changes, base), {changed.site: changed for changed in changes}
    )


def _refuse_large(parent: ParentAdapter, changes: Collection[ChangedWeight]) -> None:
    for changed in changes:
        if _elements(parent, changed) > MAX_ELEMENTS:
            raise Unsupported(
                f"{parent.label} changes {changed.site.path}, whose update of {changed.site.fan_out:,}×"
                f"{changed.site.width:,} values is too large to measure"
            )


def _elements(parent: ParentAdapter, changed: ChangedWeight) -> int:
    """Values of the update in memory: of its factors if the method has them, else of the dense matrix."""
    fan_out, width = changed.site.fan_out, changed.site.width
    if not is_factored(parent):
        return fan_out * width
    maximum = min(fan_out, width)
    rank = METHODS[parent.adapter.spec.method].lora_rank(changed.module, parent.adapter.config)
    return (fan_out + width) * min(maximum, rank or maximum)
