"""TSV-Merge: makes the singular vectors of all updates orthogonal, so that the updates do not interfere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.tensors.tolerances import NEGLIGIBLE

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_DEPENDENT = 1e-10
"""Eigenvalues of XᵀX below this count as 0."""


def tsv(inputs: CombineInputs) -> Factors:
    """polar([U_1 …]) · diag(w_i σ_i) · polar([V_1 …])ᵀ, from each update's first singular triplets."""
    import torch

    from adaptry.compute.tensors.lowrank import Factors, decompose

    triplets = int(inputs.number("triplets"))
    found = []
    for update in inputs.updates:
        fair = max(1, min(update.up.shape[-2], update.down.shape[-1]) // len(inputs.updates))
        found.append(decompose(update, min(update.rank, fair, triplets or fair)))
    # The vectors of a singular value of 0 are arbitrary, so they must not affect the others.
    real = [(each.values > NEGLIGIBLE * each.values[..., :1]).unsqueeze(-2) for each in found]
    kept = [mask[..., : each.left.shape[-1]] for mask, each in zip(real, found, strict=True)]
    left = polar(torch.cat([each.left * mask for each, mask in zip(found, kept, strict=True)], dim=-1))
    right = polar(torch.cat([each.right.mT * mask for each, mask in zip(found, kept, strict=True)], dim=-1))
    weighted = [
        each.values[..., : each.left.shape[-1]] * weight
        for each, weight in zip(found, inputs.weights, strict=True)
    ]
    values = torch.cat(weighted, dim=-1)
    root = values.abs().sqrt().unsqueeze(-2)
    up = left * root * values.sign().unsqueeze(-2)
    return Factors(up.float(), (right * root).mT.float().contiguous())


def polar(vectors: Tensor) -> Tensor:
    """X (XᵀX)^(-1/2), [..., m, r] in float64: the closest matrix with orthonormal columns.

    If columns of X are linearly dependent, it is the partial isometry: directions outside X stay 0.
    """
    import torch

    values, axes = torch.linalg.eigh(vectors.mT @ vectors)
    inverse = torch.where(values > _DEPENDENT, values.clamp(min=_DEPENDENT).rsqrt(), 0)
    result: Tensor = vectors @ ((axes * inverse.unsqueeze(-2)) @ axes.mT)
    return result


METHODS = (
    CombineMethod(
        "tsv",
        "makes the singular vectors of all updates orthogonal to each other",
        tsv,
        source="Gargiulo et al., arXiv 2412.00081 (TSV-Merge)",
        parameters={
            "triplets": MethodParameter(
                0, "maximum number of singular triplets of each update (0: all)", 0, 1 << 16
            )
        },
        differences=(
            "The authors' code uses min(out, in) / T triplets of each update; for a LoRA most of them have"
            " the"
            " value 0 and arbitrary vectors, which distort the result. Here an update has at most as many"
            " triplets as its rank. If two updates have the same vectors, they share one direction (the polar"
            " factor is a partial isometry), so the merge of an update with itself is that update."
        ),
    ),
)
