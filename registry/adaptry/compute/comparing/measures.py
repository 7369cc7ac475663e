"""How alike the updates of one site are: lengths, angles, distances, shared subspaces, signs that disagree.

From factors, in float64; only signs need the elements themselves, which are formed some rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptry.compute.tensors.lowrank import Factors, decompose, orthonormal_bases

_AT_ONCE = 1 << 20
"""Elements of one update that are formed at once."""
_SEEN = 1 << 22
"""Elements of a site that are looked at; of a larger one, rows evenly spaced: an estimate, which is said."""
_NEGLIGIBLE = 1e-6
"""A singular value so much smaller than the largest is float32 rounding, no direction of the update."""


@dataclass(frozen=True, slots=True)
class Subspaces:
    """Orthonormal bases of what an update writes to (`columns` [..., out, k]) and reads from (`rows` [..., k,
    in]); `rank` [...]: how many of the k are there, the others being 0. All float64.
    """

    columns: Tensor
    rows: Tensor
    rank: Tensor


@dataclass(frozen=True, slots=True)
class SignConflict:
    """`mass`: Σ|Δ| over all elements that were looked at and all updates; `conflicting`: the part of it on
    elements where updates have both signs. `rows` of `of` rows were looked at.
    """

    mass: float
    conflicting: float
    sampled_rows: int
    total_rows: int


def length(update: Factors) -> float:
    """‖Δ‖ (Frobenius), exact to float64 also where the factors cancel each other."""
    return float(orthonormal_bases(update)[1].norm())


def difference(one: Factors, other: Factors) -> Factors:
    """Δ_1 − Δ_2 in float64, so that its length is right however near they are."""
    a, b = one.double(), other.double()
    return Factors(torch.cat([a.up * a.scale, b.up * -b.scale], dim=-1), torch.cat([a.down, b.down], dim=-2))


def subspaces(update: Factors) -> Subspaces:
    found = decompose(update)
    largest = found.values[..., :1]
    is_there = (found.values > _NEGLIGIBLE * largest).double()
    return Subspaces(
        found.left * is_there.unsqueeze(-2), found.right * is_there.unsqueeze(-1), is_there.sum(-1)
    )


def subspace_overlaps(one: Subspaces, other: Subspaces) -> tuple[float, float] | None:
    """How much of the smaller subspace lies in the larger: of columns, of rows; each 0 to 1.

    The mean squared cosine of the principal angles, ‖Q_1ᵀ Q_2‖² / min(r_1, r_2) (Björck and Golub 1973); of
    experts, the mean over those that both change. None where one update is 0. Random subspaces of [out, in]
    have about max(r_1, r_2) / out and max(r_1, r_2) / in.
    """
    smaller = torch.minimum(one.rank, other.rank)
    if not bool((smaller > 0).any()):
        return None
    shared = smaller > 0

    def mean(products: Tensor) -> float:
        squares = products.square().sum((-2, -1))
        return float((squares[shared] / smaller[shared]).mean())

    return mean(one.columns.mT @ other.columns), mean(one.rows @ other.rows.mT)


def measure_sign_conflict(updates: Sequence[Factors]) -> SignConflict:
    """Where updates of one site pull an element both up and down, weighted by how strongly."""
    first = updates[0]
    of, width = first.up.shape[-2], first.down.shape[-1]
    matrices = math.prod(first.up.shape[:-2])
    rows = max(1, min(of, _SEEN // (width * matrices)))
    seen = torch.arange(rows) * of // rows
    step = max(1, _AT_ONCE // (width * matrices))
    mass = conflicting = 0.0
    for start in range(0, rows, step):
        some = seen[start : start + step]
        dense = torch.stack([(each.up[..., some, :] @ each.down) * each.scale for each in updates])
        weight = dense.abs().sum(0)
        both = (dense > 0).any(0) & (dense < 0).any(0)
        mass += float(weight.sum(dtype=torch.float64))
        conflicting += float(weight[both].sum(dtype=torch.float64))
    return SignConflict(mass, conflicting, rows, of)
