"""KnOTS: rotates updates into common axes before it combines them element by element.

The axes are the left singular vectors U of [Δ_1 … Δ_T]; UᵀΔ_i are the components of update i. Independently
trained LoRAs agree on few elements of Δ, but on more of these components. Everything is computed in factors:
the axes come from an R×R problem, and the combined matrices are R×in instead of out×in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod
from adaptry.compute.combining.subspace import combine_in_subspace, inner_parameters

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors


def knots(inputs: CombineInputs) -> Factors:
    """U · merge(UᵀΔ_1, …, UᵀΔ_T), as float32 factors [..., out, R] and [..., R, in], with R the sum of
    the ranks.
    """
    import torch

    from adaptry.compute.tensors.lowrank import Factors, numerical_rank
    from adaptry.compute.tensors.orthonormal_basis import basis_of

    ranks = [update.rank for update in inputs.updates]
    basis = basis_of(torch.cat([update.up for update in inputs.updates], dim=-1))
    parts = [
        part * update.scale
        for part, update in zip(torch.split(basis.upper, ranks, dim=-1), inputs.updates, strict=True)
    ]
    # [Δ_1 … Δ_T] = Q · [part_1 A_1 …]; the orthonormal basis of each A_i does not affect the left singular
    # vectors.
    core = torch.cat(
        [
            part @ basis_of(update.down.mT).upper.mT
            for part, update in zip(parts, inputs.updates, strict=True)
        ],
        dim=-1,
    )
    turn, values, _ = torch.linalg.svd(core, full_matrices=False)
    turn = turn[..., : numerical_rank(values)]
    aligned = [
        Factors((turn.mT @ part).float(), update.down)
        for part, update in zip(parts, inputs.updates, strict=True)
    ]
    return Factors(basis.times(turn).float(), combine_in_subspace(inputs, aligned))


METHODS = (
    CombineMethod(
        "knots",
        "rotates the updates into common axes, and combines them there element by element",
        knots,
        source="Stoica et al., ICLR 2025, arXiv 2410.19735",
        parameters=inner_parameters("ties"),
        differences=(
            "The authors' code ignores the trained scale α/r, trims the elements of all modules together and"
            " drops singular values below 1e-5; here the scale is included, each module is trimmed"
            " separately,"
            " and values below 1e-6 of the largest are dropped. With merge: linear it is the plain sum. If"
            " singular values are equal, the axes are not unique."
        ),
    ),
)
