"""Whether an adapter has tensors for all that its config targets in a base.

A checkpoint saved half-way, or under an adapter name that swallowed a layer, loads with a warning and leaves
modules as they were, or at random values. The config says what was meant, the base what there is.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.tensor_names import layer_of
from adaptry.checks.binding import BoundAdapter
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import (
    fold_layer_numbers,
    format_count,
    format_ranges,
    shorten_names,
    verb_form,
)
from adaptry.core.report import Finding


def check_coverage(bound: BoundAdapter) -> Iterator[Finding]:
    """Modules of the base that the config targets and the file says nothing about; nothing if none fits."""
    idle = bound.uncovered
    if not idle or not bound.module_map.placed:
        return
    layers = {layer for name in idle if (layer := layer_of(name)) is not None}
    where = f", in layers {format_ranges(layers)}" if layers else ""
    yield build_finding(
        "layers_random" if bound.fills_in else "layers_uncovered",
        f"{format_count(len(idle), 'targeted module')} {verb_form(len(idle), 'has', 'have')} no tensors:"
        f" {shorten_names(fold_layer_numbers(idle))}{where}",
        idle,
    )
