"""Finds weights whose update is lost when the result is rounded to its dtype.

A bfloat16 keeps eight bits: W + 0.001·W rounds to W. Such a result loads, and answers like the base,
although the adapter works unmerged. With normally distributed weights and updates, about a quarter of an
update is left if a tenth of the elements change, and 3 % if a hundredth do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from adaptry.checks.base_codes import BASE_CODES
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.compute.merging.dequantisation import SummedLoras
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.lora_delta import LoraDelta, read_term
from adaptry.compute.merging.peft_rounding import SequentialRounding
from adaptry.compute.merging.value_tally import ValueTally
from adaptry.compute.merging.whole_changes import ChangeChain, MethodChange, StreamedChange, WholeChange
from adaptry.compute.tensors.kernel import StoredMatrix
from adaptry.core.lazy_dataclass import dataclass

MIN_PERCENT = 10
"""If fewer than 1 of so many elements change, most of the update is lost."""

ROUNDING_REMEDY = BASE_CODES["lost_in_merge"].remedy

_SPARSE = ("shira", "supertuning", "adamss", "waveft")
"""Methods that train few elements or rows of a weight."""


@dataclass(frozen=True, slots=True)
class ChangedElements:
    """The number of `elements` of the adapted weights, the number of those that `changed`, and the names of
    the weights that `lost` most of their update.
    """

    elements: int = 0
    changed: int = 0
    lost: tuple[str, ...] = ()

    def __add__(self, other: ChangedElements) -> ChangedElements:
        return ChangedElements(
            self.elements + other.elements, self.changed + other.changed, (*self.lost, *other.lost)
        )


def describe_loss(found: ChangedElements, *, is_sample: bool = False) -> str:
    """A sentence with the remedy, for counts with lost weights."""
    listed = shorten_names(fold_layer_numbers(found.lost))
    lost, sampled, change = (
        ("would be lost", "sampled ", "would change") if is_sample else ("was lost", "", "changed")
    )
    return (
        f"most of the update {lost} ({listed}), because it is too small to survive rounding to the result's"
        f" dtype: {found.changed:,} of {found.elements:,} {sampled}elements {change};"
        f" {ROUNDING_REMEDY}"
    )


def count_changed(tensors: Iterable[OutputTensor], tallies: Mapping[str, ValueTally]) -> ChangedElements:
    """The counts of those tensors that an adapter changes. Raises `InvalidWeights`."""
    adapted = [tensor for tensor in tensors if tensor.is_adapted and tensor.name in tallies]
    return ChangedElements(
        sum(tensor.numel for tensor in adapted),
        sum(tallies[tensor.name].changed for tensor in adapted),
        tuple(each.name for each in adapted if is_lost(each, tallies[each.name].changed)),
    )


def is_lost(tensor: OutputTensor, changed: int) -> bool:
    """Whether most of a tensor's update was lost, if `changed` of its elements differ from the base's."""
    return changed * MIN_PERCENT < tensor.numel and changed * MIN_PERCENT < _updated_elements(tensor)


def _updated_elements(tensor: OutputTensor) -> int:
    """The number of elements with an update other than zero; 0 if the kind of change allows most of the
    update to be zero.
    """
    leaves = [leaf for change in tensor.changes for leaf in _leaves(change)]
    updates = [*tensor.updates, *(leaf for leaf in leaves if isinstance(leaf, LoraDelta))]
    others = [leaf for leaf in leaves if not isinstance(leaf, LoraDelta)]
    if not all(_is_dense(change) for change in others):
        return 0
    return tensor.numel if others else _updated_by_loras(updates)


def _leaves(change: WholeChange) -> Iterator[WholeChange | LoraDelta]:
    match change:
        case StreamedChange():
            yield change.update
        case SummedLoras():
            yield from change.updates
        case ChangeChain() | SequentialRounding():
            for step in change.steps:
                yield from _leaves(step)
        case _:
            yield change


def _is_dense(change: WholeChange | LoraDelta) -> bool:
    """Whether a method updates all elements. LoRAs of embeddings learn only rows of tokens that occur."""
    if not isinstance(change, MethodChange):
        return False
    method, kind = change.adapter.spec.method, change.module.kind
    return method not in _SPARSE and kind in ("linear", "conv1d", "conv")


def _updated_by_loras(updates: Iterable[LoraDelta]) -> int:
    """Elements in rows and columns for which the factors have numbers: a LoRA of a part of a fused weight has
    zeros for the rest.
    """
    maximum = 0
    for update in updates:
        term = read_term(update)
        maximum = max(maximum, _nonzero(term.up, axis=1) * _nonzero(term.down, axis=0))
    return maximum


def _nonzero(factor: StoredMatrix, axis: int) -> int:
    import numpy as np

    from adaptry.compute.tensors.stored_array import as_array

    return int(np.count_nonzero(as_array(factor.data, factor.dtype, factor.shape).any(axis=axis)))
