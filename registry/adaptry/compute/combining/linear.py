"""Sums of updates: the exact sum, and its closest approximation of a lower rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors


def weighted_sum(inputs: CombineInputs) -> Factors:
    """Σ w_i Δ_i, exactly, as concatenated factors [..., out, R] and [..., R, in], with R the sum of the
    ranks."""
    from adaptry.compute.tensors.lowrank import concatenate

    pairs = zip(inputs.updates, inputs.weights, strict=True)
    return concatenate([update.scaled_by(weight) for update, weight in pairs])


LINEAR = CombineMethod(
    "linear",
    "weighted sum of the updates (task arithmetic)",
    weighted_sum,
    source="Ilharco et al., arXiv 2212.04089",
    differences=(
        "PEFT's `linear` sums the factors, so its result has cross terms B_i A_j and is not a sum of updates "
        "(here: `peft:linear`). mergekit's `linear` averages whole models; its `task_arithmetic` is this sum."
    ),
)
SVD = CombineMethod(
    "svd",
    "weighted sum, truncated to a rank by a singular value decomposition",
    weighted_sum,
    source="Eckart and Young 1936",
    rank=max,
    differences=(
        "PEFT's `svd` decomposes the dense sum; the result is the same update, but the singular values are"
        " split evenly between the factors here, and in lora_B there (`peft:svd`)."
    ),
)
METHODS = (LINEAR, SVD)
