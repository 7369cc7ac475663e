"""Magnitude pruning: the largest elements of each update, and their weighted sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import Combination, Given
from adaptry.compute.combining.options import DENSITY, SUM, rescaling

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.combining.dense_rows import Prune


def trims(given: Given) -> list[Prune]:
    """For each update, the pruning that keeps its largest elements, by `density` and `rescale`."""
    from adaptry.compute.combining.dense_rows import Rows
    from adaptry.compute.combining.sparsity import largest, same_norm

    found = []
    for update in given.updates:
        rows = Rows.of(update)
        prune = largest(rows, given.number("density"))
        found.append(same_norm(rows, prune) if given.word("rescale") == "l1" else prune)
    return found


def magnitude_prune(given: Given) -> Tensor:
    """λ Σ w_i top(Δ_i)."""
    from adaptry.compute.combining.dense_rows import fused
    from adaptry.compute.combining.sign_election import summed

    return fused(given, trims(given), summed(given))


METHODS = (
    Combination(
        "magnitude_prune",
        "the largest elements of each update, summed",
        magnitude_prune,
        source="Han et al., arXiv 1506.02626",
        parameters={"density": DENSITY, "rescale": rescaling("none"), **SUM},
        work="dense",
        differs="PEFT's `magnitude_prune` prunes lora_A and lora_B separately (`peft:magnitude_prune`); its "
        "`magnitude_prune_svd` is this. Both break ties by the order of a sort; here equal magnitudes stay together.",
    ),
)
