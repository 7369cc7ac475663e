"""DARE: drops random elements, scales up the rest to compensate, then computes a sum or TIES' election."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod
from adaptry.compute.combining.options import ELECTION, KEEP_PROBABILITY, RESCALE, SUM

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.combining.dense_rows import PruneFunction


def dropout_prunes(inputs: CombineInputs) -> list[PruneFunction]:
    """For each update, its random pruning by `density` and `rescale`."""
    return [_drop(inputs, place) for place in range(len(inputs.updates))]


def _drop(inputs: CombineInputs, place: int) -> PruneFunction:
    from adaptry.compute.combining.dense_rows import DenseRows
    from adaptry.compute.combining.sparsity import drop_at_random, rescale_l1

    density, rescale = inputs.number("density"), inputs.word("rescale")
    if rescale == "l1" and density < 1:
        return rescale_l1(
            DenseRows.from_factors(inputs.updates[place]),
            lambda: drop_at_random(inputs.random(place), density),
        )
    return drop_at_random(inputs.random(place), density, is_divided=rescale != "none")


def dare_linear(inputs: CombineInputs) -> Tensor:
    """λ Σ w_i drop(Δ_i), [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_sum

    return combine_rows(inputs, dropout_prunes(inputs), fuse_by_sum(inputs))


def dare_ties(inputs: CombineInputs) -> Tensor:
    """λ · mean of w_i drop(Δ_i) over the agreeing i, [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_election

    return combine_rows(inputs, dropout_prunes(inputs), fuse_by_election(inputs))


_PAPER = "Yu et al., arXiv 2311.03099"
_DRAWS = (
    "PEFT and mergekit draw from the global generator, so a result depends on everything that ran before;"
    " here only on the recipe's seed. PEFT's non-svd types drop elements of lora_A and lora_B"
    " (`peft:dare_linear`, `peft:dare_ties`). mergekit scales to preserve Σ|δ| (rescale: l1), the paper and"
    " PEFT by 1/density."
)
METHODS = (
    CombineMethod(
        "dare_linear",
        "drops random elements, scales up the rest and sums",
        dare_linear,
        source=_PAPER,
        parameters={"density": KEEP_PROBABILITY, "rescale": RESCALE, **SUM},
        delta_form="dense",
        differences=_DRAWS,
    ),
    CombineMethod(
        "dare_ties",
        "drops random elements, then takes the mean of those with the elected sign",
        dare_ties,
        source=f"{_PAPER}; Yadav et al., arXiv 2306.01708",
        parameters={"density": KEEP_PROBABILITY, "rescale": RESCALE, **ELECTION},
        delta_form="dense",
        differences=(
            f"{_DRAWS} mergekit does not divide (divide: none); PEFT elects by the unweighted updates"
            " (sign: unweighted)."
        ),
    ),
)
