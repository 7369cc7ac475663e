"""Findings from an inspection of the weights: non-finite values, and modules that change nothing.

These are pure functions of values; `adaptry.adapters.inspection` inspects the weights, in a limited process.
So a server and a command line find the same in the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.inspection.files import inspect_content
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.core.report import Finding

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord

WEIGHTS_CODES = frozenset({"weights_nan", "weights_infinite", "untrained", "modules_untrained"})
"""Findings that need the weights."""

# AdapterHub's roles, MLX's, and kohya's.
_ROLES = {
    "lora_A": "A", "lora_B": "B", "lora_a": "A", "lora_b": "B",
    "lora_down.weight": "A", "lora_up.weight": "B", "oft_blocks": "R",
}  # fmt: skip
_LYCORIS = ("hada_", "lokr_")

FindUnchanged = Callable[[], Collection[str]]
"""Finds the targets of the weights that the adapter replaces by the base's own (`weights_of_base`)."""


def check_weights(
    adapter: Adapter,
    inspector: Inspector | None = None,
    tenant: str = "",
    base: BaseRecord | None = None,
) -> list[Finding]:
    """Reads every tensor once, and finds NaN, infinities, and modules that change nothing. With an
    `inspector`, its processes are used, in the turn of `tenant`. Weights that the adapter replaces are
    compared with those of its `base`.

    Raises `Unavailable` if they cannot be inspected, and `InvalidWeights`.
    """
    if inspector is not None:
        found = inspect_content(inspector, adapter.content, tenant)
        return weights_findings(adapter.spec, found, partial(weights_of_base, adapter, base))
    with closing(Inspector()) as own:
        return check_weights(adapter, own, base=base)


def weights_findings(
    spec: Spec, inspections: Mapping[str, WeightsInspection], find_unchanged: FindUnchanged = frozenset
) -> list[Finding]:
    """Findings about an adapter, from the inspection of its weights files by path. `find_unchanged` is called
    if everything depends on the weights that the adapter replaces.
    """
    return [*not_finite_findings(inspections), *_untrained(spec, inspections, find_unchanged)]


def not_finite_findings(inspections: Mapping[str, WeightsInspection]) -> Iterator[Finding]:
    """Findings about NaN and infinity in any weights files."""
    tensors = [item for inspection in inspections.values() for item in inspection.tensors.items()]
    if nan := [name for name, tensor in tensors if tensor.nan]:
        yield build_finding(
            "weights_nan",
            f"NaN in {format_count(len(nan), 'tensor')}: {shorten_names(fold_layer_numbers(nan))}",
            nan,
        )
    if infinite := [name for name, tensor in tensors if tensor.infinite]:
        reason = (
            f"infinite values in {format_count(len(infinite), 'tensor')}:"
            f" {shorten_names(fold_layer_numbers(infinite))}"
        )
        yield build_finding("weights_infinite", reason, infinite)


def _untrained(
    spec: Spec, inspections: Mapping[str, WeightsInspection], find_unchanged: FindUnchanged
) -> Iterator[Finding]:
    """Most methods begin with a factor of zeros, or with multipliers of one, so that nothing changes."""
    idle = idle_modules(spec, inspections)
    replaced = [extra.target for extra in spec.extras]
    if len(idle) == len(spec.modules) and (idle or replaced) and {*replaced} <= {*find_unchanged()}:
        reasons = ["no module changes anything"] if idle else []
        if replaced:
            listed = shorten_names(fold_layer_numbers(replaced))
            reasons.append(f"{listed} {'has' if len(replaced) == 1 else 'have'} the base's own values")
        yield build_finding("untrained", ", and ".join(reasons), [*idle, *replaced])
    elif idle:
        listed = shorten_names(fold_layer_numbers(idle))
        yield build_finding("modules_untrained", f"these modules change nothing: {listed}", idle)


def idle_modules(spec: Spec, inspections: Mapping[str, WeightsInspection]) -> list[str]:
    """The paths of the modules that leave the model as it is, since their update is zero or their multipliers
    are one.
    """
    method = METHODS.get(spec.method)
    if method is None:
        return []
    tensors = [item for inspection in inspections.values() for item in inspection.tensors.items()]
    zeros = {name for name, tensor in tensors if tensor.is_zero}
    ones = {name for name, tensor in tensors if tensor.is_one}
    if not zeros and not ones:
        return []
    return [
        module.path
        for module in spec.modules
        if method.changes_nothing(_by_role({**spec.shared, **module.tensors}), zeros, ones)
    ]


def _by_role(tensors: Mapping[str, str]) -> Mapping[str, str]:
    """The names of tensors by PEFT's roles, also in the layouts of other tools."""
    return {_ROLES.get(role, _without_lycoris(role)): name for role, name in tensors.items()}


def _without_lycoris(role: str) -> str:
    return next((role.removeprefix(start) for start in _LYCORIS if role.startswith(start)), role)


def weights_of_base(adapter: Adapter, base: BaseRecord | None) -> Collection[str]:
    """The targets of the weights that the adapter replaces by the base's own (`base.copied_weights`)."""
    from adaptry.checks.base import copied_weights  # only for an adapter that may change nothing

    return copied_weights.weights_of_base(adapter, base)
