"""Findings about an adapter bound to its base: whether it fits, and which parts PEFT drops, refuses or fills
in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from adaptry.adapters.formats import PEFT
from adaptry.adapters.tensor_names import layer_of
from adaptry.bases.module_map import ExtraTarget
from adaptry.checks.base.fit import check_fit
from adaptry.checks.binding import BoundAdapter, DroppedPart
from adaptry.checks.binding.bound_adapter import DropCause
from adaptry.checks.binding.direct_weights import (
    bypassed_attentions,
    bypassed_modules,
    bypassed_rows,
    is_unused_copy,
    model_types,
    modules_unlike_peft,
)
from adaptry.checks.binding.live_errors import live_errors
from adaptry.checks.binding.loaded_model import bare_path
from adaptry.checks.binding.rows_without_bias import heads_without_bias
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import (
    fold_layer_numbers,
    format_count,
    format_layers,
    shorten_names,
    verb_form,
)
from adaptry.core.report import Finding

_CODES: Mapping[DropCause, str] = {
    "name": "names_not_loaded",
    "not_targeted": "modules_not_targeted",
    "no_place": "weights_not_loaded",
    "incomplete": "keys_dropped",
}


def check_bound(bound: BoundAdapter) -> tuple[Finding, ...]:
    """A finding for each cause and reason, with all its modules. Modules without tensors are reported only if
    nothing blocks.
    """
    uncovered = tuple(_uncovered(bound))
    found = (*_repeated(bound), *_unlike_file(bound))
    if bound.unbound is not None:
        return found
    fit = tuple(check_fit(bound.adapter, bound.base, bound.module_map))
    is_blocked = any(finding.severity == "blocks" for finding in (*found, *fit))
    return (*fit, *found) if is_blocked else (*fit, *found, *uncovered)


def _repeated(bound: BoundAdapter) -> Iterator[Finding]:
    """Layers that the adapter's `layer_replication` repeats."""
    if not bound.layers and bound.unbound is None:
        return
    written = f"layer_replication is {bound.adapter.config.fields['layer_replication']}"
    unbound = f", so the adapter was not checked: it {bound.unbound}" if bound.unbound else ""
    yield build_finding("layers_renumbered", f"{written}{unbound}")


def _unlike_file(bound: BoundAdapter) -> Iterator[Finding]:
    """Findings about parts that PEFT drops, refuses or replaces."""
    for refusal in bound.refusals:
        yield build_finding("peft_refuses", refusal)
    by_reason: dict[tuple[DropCause, str], list[DroppedPart]] = {}
    spec = bound.adapter.spec
    has_nothing = not spec.modules and not spec.extras
    for dropped in bound.dropped:
        if dropped.cause == "incomplete" or (has_nothing and dropped.cause == "no_place"):
            continue  # reported without a base too
        # A wrong prefix gives every module a different reason; show the first.
        reason = "" if dropped.cause == "name" else dropped.reason
        by_reason.setdefault((dropped.cause, reason), []).append(dropped)
    for (cause, _), group in by_reason.items():
        (reason,) = fold_layer_numbers([group[0].reason])
        paths = [dropped.path for dropped in group]
        names = shorten_names(fold_layer_numbers(paths))
        count = format_count(sum(len(dropped.tensors) for dropped in group), "tensor")
        yield build_finding(_CODES[cause], f"{count} of {names}: {reason}", paths)
    if bound.chosen_class is not None and (bound.module_map.placed or bound.module_map.extras):
        yield build_finding("model_class_chosen", bound.chosen_class)
    if bound.unknown_parameters:
        names = shorten_names(bound.unknown_parameters)
        reason = f"target_parameters lists {names}, but the model has no such parameter"
        yield build_finding("parameters_unknown", reason, bound.unknown_parameters)
    if bound.precision_loss is not None:
        yield build_finding("merge_differs", bound.precision_loss)
    yield from _used_otherwise(bound)
    if bound.base.facts.get("quantization"):
        yield from _refused_by_quantised_layers(bound)
    if bound.unlisted:
        targets = [extra.extra.target for extra in bound.unlisted]
        yield build_finding(
            "base_weight_replaced", f"it replaces {shorten_names(fold_layer_numbers(targets))}", targets
        )


def _refused_by_quantised_layers(bound: BoundAdapter) -> Iterator[Finding]:
    from adaptry.checks.binding.quantised_layers import refused_by_quantised_layers  # needed for few bases

    for why, paths in refused_by_quantised_layers(bound.adapter, bound.base, bound.module_map.placed):
        names = shorten_names(fold_layer_numbers(paths))
        yield build_finding("quantised_refused", f"{names}: {why}", paths)


def _used_otherwise(bound: BoundAdapter) -> Iterator[Finding]:
    """Findings about modules that the model does not call, or that do more than PEFT's layers expect."""
    if bound.adapter.format is not PEFT:
        return
    places = [(bare_path(target.module.path), target.weight.shape) for target in bound.module_map.placed]
    yield from _never_called(bound, places)
    rows = [_module_of(extra) for extra in bound.module_map.extras if extra.extra.kind == "token_rows"]
    if unlike := modules_unlike_peft(bound.base.facts, [*dict(places), *rows]):
        names = shorten_names(fold_layer_numbers(unlike))
        reason = (
            "the model adds an offset to the input, normalises the result or returns several, which PEFT's"
            " layer does not: unmerged, it gives other numbers or raises an error"
        )
        yield build_finding("merge_differs", f"{names}: {reason}", unlike)
    types = model_types(bound.base.facts)
    placed = bound.module_map.placed
    owners = [bare_path(each.module.path) for each in placed if each.module.kind == "parameter"]
    linear = [bare_path(each.module.path) for each in placed if each.orientation == "linear"]
    for why, paths in live_errors(types, bound.adapter.spec.method, owners, linear):
        names = shorten_names(fold_layer_numbers(paths))
        yield build_finding("merge_differs", f"{names}: {why}: unmerged, the model raises an error", paths)
    if (rows or bound.ties_saved) and (biases := heads_without_bias(bound)):
        layer = "layer for token rows" if rows else "copy of a tied head"
        reason = f"PEFT's {layer} leaves out {shorten_names(biases)}: unmerged, it is not added"
        yield build_finding("merge_differs", reason)


def _never_called(bound: BoundAdapter, places: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[Finding]:
    """`places`: the paths and shapes of the adapted modules."""
    facts, extras = bound.base.facts, bound.module_map.extras
    bypassed = bypassed_modules(facts, dict(places).items())
    placed = bound.module_map.placed
    linears = {each.module.path: each.tensor for each in placed if each.module.kind == "linear"}
    if bypassed := (*bypassed, *bypassed_attentions(linears, bound.base.tensors)):
        names = shorten_names(fold_layer_numbers(bypassed))
        yield build_finding("modules_bypassed", f"{names}: the model reads these weights itself", bypassed)
    rows = {_module_of(extra): extra.rows for extra in extras if extra.extra.kind == "token_rows"}
    if idle := bypassed_rows(facts, rows, bound.adapter.spec.method):
        reason = f"{shorten_names(idle)}: the model reads this weight itself, or calls others that have it"
        yield build_finding("modules_bypassed", reason, idle)
    if unused := [_module_of(extra) for extra in extras if is_unused_copy(facts, extra)]:
        reason = f"{shorten_names(unused)}: the model calls other modules, which keep the base's weight"
        yield build_finding("saved_copy_unused", reason, unused)


def _module_of(extra: ExtraTarget) -> str:
    return extra.extra.target.rpartition(".")[0]


def _uncovered(bound: BoundAdapter) -> Iterator[Finding]:
    """Modules of the base that the config targets, but for which the file has no tensors; empty if none fits.
    An incomplete checkpoint, or one whose adapter name hid a layer, loads with a warning. The modules without
    tensors stay unchanged or get random values.
    """
    idle = bound.uncovered
    if not idle or not bound.module_map.placed:
        return
    layers = {layer for name in idle if (layer := layer_of(name)) is not None}
    where = f", in {format_layers(layers)}" if layers else ""
    yield build_finding(
        "layers_random" if bound.fills_in else "layers_uncovered",
        f"{format_count(len(idle), 'targeted module')} {verb_form(len(idle), 'has', 'have')} no tensors:"
        f" {shorten_names(fold_layer_numbers(idle))}{where}",
        idle,
    )
