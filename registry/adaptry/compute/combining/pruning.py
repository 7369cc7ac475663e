"""Magnitude pruning: the largest elements of each update, and their weighted sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod
from adaptry.compute.combining.options import DENSITY, SUM, rescale_parameter

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.combining.dense_rows import PruneFunction


def magnitude_prunes(inputs: CombineInputs) -> list[PruneFunction]:
    """For each update, the pruning that keeps its largest elements, by `density` and `rescale`."""
    from adaptry.compute.combining.dense_rows import DenseRows
    from adaptry.compute.combining.sparsity import keep_largest, rescale_l1_exactly

    found = []
    for update in inputs.updates:
        rows = DenseRows.from_factors(update)
        prune = keep_largest(rows, inputs.number("density"))
        found.append(rescale_l1_exactly(rows, prune) if inputs.word("rescale") == "l1" else prune)
    return found


def magnitude_prune(inputs: CombineInputs) -> Tensor:
    """λ Σ w_i top(Δ_i), [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_sum

    return combine_rows(inputs, magnitude_prunes(inputs), fuse_by_sum(inputs))


METHODS = (
    CombineMethod(
        "magnitude_prune",
        "sums the largest elements of each update",
        magnitude_prune,
        source="Han et al., arXiv 1506.02626",
        parameters={"density": DENSITY, "rescale": rescale_parameter("none"), **SUM},
        delta_form="dense",
        differences=(
            "PEFT's `magnitude_prune` prunes lora_A and lora_B separately (`peft:magnitude_prune`); its"
            " `magnitude_prune_svd` is this. Both break ties by the order of a sort;"
            " here equal magnitudes are kept together."
        ),
    ),
)
