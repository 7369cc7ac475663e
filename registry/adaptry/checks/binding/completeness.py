"""The precondition for computing with an adapter: PEFT loads all of it."""

from __future__ import annotations

from adaptry.adapters.tensor_names import is_buffer
from adaptry.checks.binding.bound_adapter import BoundAdapter
from adaptry.checks.finding_text import format_count
from adaptry.core.errors import CheckFailed


def require_complete(label: str, bound: BoundAdapter) -> None:
    """Raises `CheckFailed` for an adapter that PEFT would refuse, or load only in part; `label` names it."""
    if bound.refusals:
        raise CheckFailed(f"PEFT refuses to load {label}: {bound.refusals[0]}")
    if bound.dropped:
        first, count = bound.dropped[0], sum(len(dropped.tensors) for dropped in bound.dropped)
        raise CheckFailed(
            f"{label}: PEFT would silently drop {format_count(count, 'tensor')}"
            f" ({first.path}: {first.reason}); `adaptry check` shows the remedy"
        )
    loaded = {extra.extra.tensor for extra in bound.module_map.extras}
    tensors = bound.adapter.tensors
    unknown = [
        name
        for name in bound.adapter.spec.unclaimed
        if name not in loaded and not is_buffer(name, tensors[name].shape)
    ]
    if unknown:
        raise CheckFailed(
            f"{label} has {format_count(len(unknown), 'tensor')} of unknown use (first: {unknown[0]}), which"
            " would be dropped: save the adapter again from the trained model"
        )
