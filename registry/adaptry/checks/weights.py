"""Findings from an inspection of the weights: non-finite values, and untrained factors.

These are pure functions of values; `adaptry.adapters.inspection` inspects the weights, in a limited process.
So a server and a command line find the same in the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.inspection.files import inspect_content
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.core.report import Finding

WEIGHTS_CODES = frozenset({"weights_nan", "weights_infinite", "untrained", "modules_untrained"})
"""Findings that need the weights."""

# PEFT's roles, then those of AdapterHub, MLX and kohya.
_FACTORS = ("A", "B", "embedding_A", "embedding_B", "lora_A", "lora_B", "lora_a", "lora_b", "lora_up.weight")


def check_weights(adapter: Adapter, inspector: Inspector | None = None, tenant: str = "") -> list[Finding]:
    """Reads every tensor once, and finds NaN, infinities, and factors that are all zero. With an `inspector`,
    its processes are used, in the turn of `tenant`.

    Raises `Unavailable` if they cannot be inspected, and `InvalidWeights`.
    """
    if inspector is not None:
        return weights_findings(adapter.spec, inspect_content(inspector, adapter.content, tenant))
    with closing(Inspector()) as own:
        return check_weights(adapter, own)


def weights_findings(spec: Spec, inspections: Mapping[str, WeightsInspection]) -> list[Finding]:
    """Findings about an adapter, from the inspection of its weights files by path."""
    tensors = [item for inspection in inspections.values() for item in inspection.tensors.items()]
    zero = {name for name, tensor in tensors if tensor.is_zero}
    return [*not_finite_findings(inspections), *_untrained(spec, zero)]


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


def _untrained(spec: Spec, zero: set[str]) -> Iterator[Finding]:
    """PEFT initialises B (and an embedding's A) with zeros, so a factor of zeros was never trained."""
    modules = spec.modules
    idle = [module.path for module in modules if any(module.tensors.get(role) in zero for role in _FACTORS)]
    if idle and len(idle) == len(modules) and not spec.extras:
        yield build_finding(
            "untrained", f"all {format_count(len(idle), 'module')} have a factor of zeros", idle
        )
    elif idle:
        yield build_finding(
            "modules_untrained", f"{shorten_names(fold_layer_numbers(idle))}: a factor is all zeros", idle
        )
