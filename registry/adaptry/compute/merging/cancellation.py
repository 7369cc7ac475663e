"""Updates that cancel each other in a merge, as A and -A do: only rounding errors remain.

Plain LoRAs are compared by their values, from their factors. Other changes cancel if the weights of each
adapter's sum to 0. A merge of one adapter is not examined.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.checks.finding_text import format_count
from adaptry.compute.combining.cancellation import NO_EFFECT, is_cancelled
from adaptry.compute.combining.combine import combine_deltas
from adaptry.compute.merging.combined_changes import CombinedChange
from adaptry.compute.merging.dequantisation import SummedLoras
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.lora_delta import LoraDelta, read_term
from adaptry.compute.merging.peft_rounding import SequentialRounding
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.whole_changes import (
    ChangeChain,
    ChangeFromBase,
    MethodChange,
    Replacement,
    RowReplacement,
    StreamedChange,
    WholeChange,
)
from adaptry.compute.tensors.tolerances import NEGLIGIBLE
from adaptry.core.errors import CheckFailed


def check_cancellation(plan: MergePlan) -> MergePlan:
    """The plan, with a note if the updates cancel each other in some weights. Reads all factors if an input
    has a negative weight, otherwise only those of the first weight (one adapter can be the negative of
    another). For methods that form updates densely, computes the smallest weight first, and the others only
    if its update is 0. Raises `CheckFailed` if the updates cancel in every weight, `InvalidWeights`.
    """
    adapted = [tensor for tensor in plan.changed_tensors if tensor.is_adapted]
    if len(plan.inputs) < 2 or not adapted:
        return plan
    identities = _Identities()
    is_dense = any(map(_is_formed_densely, adapted))
    is_subtracted = any(one.weight < 0 for one in plan.inputs) and not is_dense
    sample = min(adapted, key=lambda tensor: tensor.numel) if is_dense else adapted[0]
    if not is_subtracted and not _changes_nothing(sample, identities):
        return plan
    cancelled = [tensor.name for tensor in adapted if _changes_nothing(tensor, identities)]
    if not cancelled:
        return plan
    if len(cancelled) == len(adapted):
        raise CheckFailed(NO_EFFECT)
    note = (
        f"the updates are 0 or cancel each other in {len(cancelled):,} of"
        f" {format_count(len(adapted), 'weight')} (first: {cancelled[0]})"
    )
    return replace(plan, notes=(*plan.notes, note))


class _Identities:
    """The identity of each adapter: the digest of its weights, and its config."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}  # by the id of a view, which the plan holds

    def of(self, adapter: Adapter) -> str:
        if id(adapter) not in self._known:
            fields = sorted(adapter.config.fields.items())
            self._known[id(adapter)] = f"{adapter.weights_digest()} {fields}"
        return self._known[id(adapter)]


def _changes_nothing(tensor: OutputTensor, identities: _Identities) -> bool:
    loras = list(tensor.updates)
    others: list[WholeChange] = []
    for change in _separate(tensor.changes):
        match change:
            case StreamedChange():
                loras.append(_weighted(change))
            case SummedLoras():
                loras += change.updates
            case _:
                others.append(change)
    combined = [change for change in others if isinstance(change, CombinedChange)]
    own = [change for change in others if not isinstance(change, CombinedChange)]
    return (
        all(map(_is_combination_cancelled, combined))
        and _are_loras_cancelled(loras)
        and _are_weights_cancelled(own, identities)
    )


def _separate(changes: Sequence[WholeChange]) -> Iterator[WholeChange]:
    for change in changes:
        if isinstance(change, SequentialRounding):
            yield from change.steps
        else:
            yield change


def _weighted(change: StreamedChange) -> LoraDelta:
    return replace(change.update, scale=change.update.scale * change.weight)


def _are_loras_cancelled(updates: Sequence[LoraDelta]) -> bool:
    """Whether ‖Σ s_i B_i A_i‖ is only rounding, compared with Σ ‖s_i B_i A_i‖."""
    largest = max((abs(update.scale) for update in updates), default=0.0)
    if len(updates) < 2 or not 0 < largest < math.inf:
        return largest == 0
    import numpy as np

    from adaptry.compute.tensors.stored_array import as_array

    terms = [read_term(update) for update in updates]
    down = np.concatenate([as_array(each.down.data, each.down.dtype, each.down.shape) for each in terms])
    up = np.concatenate(
        [each.scale / largest * as_array(each.up.data, each.up.dtype, each.up.shape) for each in terms],
        axis=1,
    )
    down, up = down.astype(np.float64), up.astype(np.float64)
    products = (up.T @ up) * (down @ down.T)
    ends = np.cumsum([each.down.shape[0] for each in terms])
    spans = [slice(end - each.down.shape[0], end) for end, each in zip(ends, terms, strict=True)]
    norms = [math.sqrt(max(0.0, float(products[span, span].sum()))) for span in spans]
    return math.sqrt(max(0.0, float(products.sum()))) <= NEGLIGIBLE * sum(norms)


def _is_combination_cancelled(change: CombinedChange) -> bool:
    from adaptry.compute.tensors.lowrank import Factors, inner_product

    made = combine_deltas(change.plan, change.planned)
    if isinstance(made, Factors):
        return is_cancelled(change.plan, change.planned, inner_product(made, made))
    return not bool(made.any())  # values that cancel in a dense sum are exactly 0


def _is_formed_densely(tensor: OutputTensor) -> bool:
    combined = (change for change in _separate(tensor.changes) if isinstance(change, CombinedChange))
    return any(change.planned.method.delta_form == "dense" for change in combined)


def _are_weights_cancelled(changes: Sequence[WholeChange], identities: _Identities) -> bool:
    """Whether the weights of the changes by each adapter sum to 0."""
    weights = [change.weight for change in changes]
    if not changes or (min(weights) >= 0 and any(weights)) or (max(weights) <= 0 and any(weights)):
        return not changes
    sums: dict[str, list[float]] = defaultdict(list)
    for change in changes:
        sums[identities.of(_adapter_of(change))].append(change.weight)
    return all(abs(sum(each)) <= NEGLIGIBLE * sum(map(abs, each)) for each in sums.values())


def _adapter_of(change: WholeChange) -> Adapter:
    match change:
        case MethodChange() | Replacement() | RowReplacement():
            return change.adapter
        case StreamedChange():
            return change.update.adapter
        case ChangeFromBase():
            return change.replacement.adapter
        case ChangeChain():
            return _adapter_of(change.steps[0])
    raise AssertionError(f"a change by no adapter: {change}")
