"""TSV-Merge: the singular vectors of all updates, made orthogonal so that the updates do not interfere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_DEPENDENT = 1e-10
"""Eigenvalues of XᵀX below this are directions that the vectors do not have."""


def tsv(inputs: CombineInputs) -> Factors:
    """polar([U_1 …]) · diag(w_i σ_i) · polar([V_1 …])ᵀ, of each update's first singular triplets."""
    import torch

    from adaptry.compute.tensors.lowrank import NEGLIGIBLE, Factors, decompose

    asked = int(inputs.number("triplets"))
    found = []
    for update in inputs.updates:
        fair = max(1, min(update.up.shape[-2], update.down.shape[-1]) // len(inputs.updates))
        found.append(decompose(update, min(update.rank, fair, asked or fair)))
    # The vectors of a singular value of 0 are any, so they must not turn the others.
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
    """X (XᵀX)^(-1/2), [..., m, r] float64: the nearest matrix with orthonormal columns.

    Where columns of X depend on each other it is the partial isometry: what X does not reach stays 0.
    """
    import torch

    values, axes = torch.linalg.eigh(vectors.mT @ vectors)
    inverse = torch.where(values > _DEPENDENT, values.clamp(min=_DEPENDENT).rsqrt(), 0)
    result: Tensor = vectors @ ((axes * inverse.unsqueeze(-2)) @ axes.mT)
    return result


METHODS = (
    CombineMethod(
        "tsv",
        "the singular vectors of all updates, made orthogonal to each other",
        tsv,
        source="Gargiulo et al., arXiv 2412.00081 (TSV-Merge)",
        parameters={
            "triplets": MethodParameter(
                0, "how many singular triplets of each update count, at most (0: all)", 0, 1 << 16
            )
        },
        differences=(
            "The authors' code takes min(out, in) / T triplets of each update; of a LoRA most of them have"
            " the value 0 and vectors that it does not determine, and these tilt the result. Here an update"
            " has at most as many as its rank. Where vectors of two updates are the same, they share one"
            " direction (the polar factor is a partial isometry),"
            " so that the merge of an update with itself is the update."
        ),
    ),
)
