"""TIES: trim each update to its largest elements, elect a sign, and average what agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.options import ELECTION, rescale_parameter
from adaptry.compute.combining.pruning import magnitude_prunes

if TYPE_CHECKING:
    from torch import Tensor


def ties(inputs: CombineInputs) -> Tensor:
    """λ · mean over the i that agree of w_i top(Δ_i)."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_election

    return combine_rows(inputs, magnitude_prunes(inputs), fuse_by_election(inputs))


METHODS = (
    CombineMethod(
        "ties",
        "largest elements, a sign elected for each, the mean of those that have it",
        ties,
        source="Yadav et al., arXiv 2306.01708",
        parameters={
            "density": MethodParameter(0.2, "share of the elements that stay", 0.0, 1.0),
            "rescale": rescale_parameter("none"),
            **ELECTION,
        },
        delta_form="dense",
        differences=(
            "The paper trims the whole model at once; here, as in PEFT and mergekit, each module alone. The"
            " paper has no weights: an update counts here as w·Δ throughout. PEFT's `ties_svd` elects by the"
            " unweighted updates (sign: unweighted); its `ties` does all this to lora_A and lora_B separately"
            " (`peft:ties`). mergekit divides by the sum of the agreeing weights (divide: weights)."
        ),
    ),
)
