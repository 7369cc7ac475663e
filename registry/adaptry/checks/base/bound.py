"""What PEFT would leave out, refuse or replace of an adapter on its base, as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.checks.binding import BoundAdapter, Dropped
from adaptry.checks.binding.bound_adapter import DropCause
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.core.report import Finding

_CODES: Mapping[DropCause, str] = {
    "name": "names_not_loaded",
    "not_targeted": "modules_not_targeted",
    "no_place": "weights_not_loaded",
    "incomplete": "keys_dropped",
}


def check_bound(bound: BoundAdapter) -> Iterator[Finding]:
    """A finding for each cause and reason, the modules put together."""
    for refusal in bound.refusals:
        yield build_finding("peft_refuses", refusal)
    by_reason: dict[tuple[DropCause, str], list[Dropped]] = {}
    spec = bound.adapter.spec
    has_nothing = not spec.modules and not spec.extras
    for dropped in bound.dropped:
        if dropped.cause == "incomplete" or (has_nothing and dropped.cause == "no_place"):
            continue  # what the file alone tells, and is reported without a base too
        # One wrong prefix gives every module a reason of its own: the first stands for all.
        reason = "" if dropped.cause == "name" else dropped.reason
        by_reason.setdefault((dropped.cause, reason), []).append(dropped)
    for (cause, _), group in by_reason.items():
        (reason,) = fold_layer_numbers([group[0].reason])
        paths = [dropped.path for dropped in group]
        names = shorten_names(fold_layer_numbers(paths))
        count = format_count(sum(len(dropped.tensors) for dropped in group), "tensor")
        yield build_finding(_CODES[cause], f"{count} of {names}: {reason}", paths)
    if bound.unlisted:
        targets = [extra.extra.target for extra in bound.unlisted]
        yield build_finding(
            "base_weight_replaced", f"it replaces {shorten_names(fold_layer_numbers(targets))}", targets
        )
