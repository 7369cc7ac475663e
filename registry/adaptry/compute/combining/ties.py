"""TIES: trims each update to its largest elements, elects a sign, and averages the agreeing elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.options import ELECTION, rescale_parameter
from adaptry.compute.combining.pruning import magnitude_prunes

if TYPE_CHECKING:
    from torch import Tensor


def ties(inputs: CombineInputs) -> Tensor:
    """λ · mean of w_i top(Δ_i) over the agreeing i, [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_election

    return combine_rows(inputs, magnitude_prunes(inputs), fuse_by_election(inputs))


METHODS = (
    CombineMethod(
        "ties",
        "keeps the largest elements, elects a sign for each, and takes the mean of those that have it",
        ties,
        source="Yadav et al., arXiv 2306.01708",
        parameters={
            "density": MethodParameter(0.2, "share of the elements that are kept", 0.0, 1.0),
            "rescale": rescale_parameter("none"),
            **ELECTION,
        },
        delta_form="dense",
        differences=(
            "The paper trims the whole model at once; here, as in PEFT and mergekit, each module separately."
            " The paper has no weights; here an update counts as w·Δ throughout. PEFT's `ties_svd` elects by"
            " the"
            " unweighted updates (sign: unweighted); its `ties` processes lora_A and lora_B separately"
            " (`peft:ties`). mergekit divides by the sum of the agreeing weights (divide: weights)."
        ),
    ),
)
