"""Measures of similarity for updates of one site: norms, angles, distances, shared subspaces, sign conflicts.

They are computed from factors, in float64. Only signs need the elements, which are formed a few rows at a
time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from adaptry.compute.tensors.lowrank import Factors, decompose, orthonormal_bases
from adaptry.compute.tensors.tolerances import NEGLIGIBLE
from adaptry.core.lazy_dataclass import dataclass

_CHUNK = 1 << 20
"""Number of elements of an update that are computed at once."""
_MAX_ELEMENTS = 1 << 22
"""Maximum number of elements of a site that are examined. From a larger site, evenly spaced rows are sampled,
and the report marks the figure as an estimate.
"""


@dataclass(frozen=True, slots=True)
class Subspaces:
    """Orthonormal bases of an update's column space (`columns` [..., out, k]) and row space (`rows` [..., k,
    in]), in float64. `rank` [...] is the number of nonzero vectors among the k.
    """

    columns: Tensor
    rows: Tensor
    rank: Tensor


@dataclass(frozen=True, slots=True)
class SignConflict:
    """`mass` is Σ|Δ| over all examined elements and all updates; `conflicting` is the part of it on elements
    where updates have both signs. `rows` of `of` rows were examined.
    """

    mass: float
    conflicting: float
    sampled_rows: int
    total_rows: int


def length(update: Factors) -> float:
    """‖Δ‖ (Frobenius), exact to float64 even if the factors cancel each other."""
    return float(orthonormal_bases(update)[1].norm())


def difference(one: Factors, other: Factors) -> Factors:
    """Δ_1 − Δ_2 as factors in float64, so that its norm is accurate even if they are nearly equal."""
    a, b = one.double(), other.double()
    return Factors(torch.cat([a.up * a.scale, b.up * -b.scale], dim=-1), torch.cat([a.down, b.down], dim=-2))


def subspaces(update: Factors) -> Subspaces:
    found = decompose(update)
    largest = found.values[..., :1]
    is_there = (found.values > NEGLIGIBLE * largest).double()
    return Subspaces(
        found.left * is_there.unsqueeze(-2), found.right * is_there.unsqueeze(-1), is_there.sum(-1)
    )


def subspace_overlaps(one: Subspaces, other: Subspaces) -> tuple[float, float] | None:
    """The share of the smaller subspace that lies in the larger: (columns, rows), each 0 to 1.

    The mean squared cosine of the principal angles, ‖Q_1ᵀ Q_2‖² / min(r_1, r_2) (Björck and Golub 1973); for
    experts, the mean over the experts that both adapters change. None if an update is 0. Random subspaces of
    [out, in] have about max(r_1, r_2) / out and max(r_1, r_2) / in.
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
    """Measures how much the updates [..., out, in] of a site have opposite signs at the same elements,
    weighted by magnitude. Elements are computed a few rows at a time, and summed in float64.
    """
    first = updates[0]
    of, width = first.up.shape[-2], first.down.shape[-1]
    matrices = math.prod(first.up.shape[:-2])
    rows = max(1, min(of, _MAX_ELEMENTS // (width * matrices)))
    seen = torch.arange(rows) * of // rows
    step = max(1, _CHUNK // (width * matrices))
    mass = conflicting = 0.0
    for start in range(0, rows, step):
        some = seen[start : start + step]
        dense = torch.stack([(each.up[..., some, :] @ each.down) * each.scale for each in updates])
        weight = dense.abs().sum(0)
        both = (dense > 0).any(0) & (dense < 0).any(0)
        mass += float(weight.sum(dtype=torch.float64))
        conflicting += float(weight[both].sum(dtype=torch.float64))
    return SignConflict(mass, conflicting, rows, of)
