"""Iso-C: the sum of updates with a flat spectrum, so that directions of only some count like the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.linear import weighted_sum
from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Decomposition, Factors


def iso_c(inputs: CombineInputs) -> Factors:
    """σ̄ · U Vᵀ, with U and V the singular vectors of Σ w_i Δ_i, as many as there are or as `rank` says, and
    σ̄ their mean singular value.
    """
    from adaptry.compute.tensors.lowrank import decompose

    return flatten_spectrum(decompose(weighted_sum(inputs), inputs.rank), inputs.number("floor"), inputs.rank)


def flatten_spectrum(found: Decomposition, floor: float, rank: int | None = None) -> Factors:
    """Each singular value above `floor` (a share of the largest), of the first `rank`, becomes their mean;
    the others 0.

    Of a batch, each member has its own mean. Float32.
    """
    import torch

    from adaptry.compute.tensors.lowrank import Decomposition, numerical_rank

    values = found.values[..., :rank]
    counts = values > floor * values[..., :1]
    mean = (values * counts).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp(min=1)
    level = torch.where(counts, mean, 0)
    return Decomposition(found.left, level, found.right).truncate(numerical_rank(level))


METHODS = (
    CombineMethod(
        "iso_c",
        "the weighted sum with all its singular values made equal",
        iso_c,
        source="Marczak et al., arXiv 2502.04959",
        parameters={
            "floor": MethodParameter(
                1e-6, "singular values below this share of the largest are taken for none", 1e-9, 0.9
            )
        },
        differences=(
            "The authors' code takes the mean over all min(out, in) singular values and raises those that are"
            " 0 too, along vectors that the updates do not determine. Here only the sum's own directions"
            " count, so that the result depends on the updates alone. A `rank` chooses the directions before"
            " they are made equal."
        ),
    ),
)
