"""Updates as a product of two thin matrices, and algebra on them that never forms the dense matrix.

Every sum, product, norm and decomposition here costs O((out + in)·r²), compared with out·in·min(out, in) for
dense matrices. Leading dimensions are a batch (the experts of a fused parameter). Values are computed in
float64 and stored in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptry.compute.tensors.krylov import Triplets, leading_triplets
from adaptry.compute.tensors.orthonormal_basis import basis_of
from adaptry.compute.tensors.tolerances import NEGLIGIBLE
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Factors:
    """An update Δ = scale · up @ down. `up` [..., out, r], `down` [..., r, in], both float32 (or float64)."""

    up: Tensor
    down: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return self.down.shape[-2]

    def dense(self) -> Tensor:
        """Δ, [..., out, in], in the factors' dtype: the product is multiplied by the scale, like in PEFT."""
        return (self.up @ self.down) * self.scale

    def scaled_by(self, weight: float) -> Factors:
        return Factors(self.up, self.down, self.scale * weight)

    def with_unit_scale(self) -> Factors:
        """The same update with scale 1: the scale is multiplied into `up`, in its dtype."""
        return self if self.scale == 1.0 else Factors(self.up * self.scale, self.down)

    def double(self) -> Factors:
        return Factors(self.up.double(), self.down.double(), self.scale)


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Δ = left · diag(values) · right: [..., out, k], [..., k] descending, [..., k, in]; float64.

    If only the leading triplets were computed, `tail_energy` is the energy of the others.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    tail_energy: float = 0.0

    @property
    def energy(self) -> float:
        """‖Δ‖² (Frobenius), over the whole batch."""
        return float(self.values.square().sum()) + self.tail_energy

    def lost_energy(self, rank: int) -> float:
        """‖Δ − Δ_rank‖², the smallest possible loss at this rank (Eckart and Young)."""
        return float(self.values[..., rank:].square().sum()) + self.tail_energy

    def truncate(self, rank: int) -> Factors:
        """The closest update of `rank`, with singular values split evenly between the two factors, in
        float32.

        A rank larger than that of the update returns the whole update.
        """
        root = self.values[..., :rank].sqrt()
        up = self.left[..., :rank] * root.unsqueeze(-2)
        down = root.unsqueeze(-1) * self.right[..., :rank, :]
        return Factors(up.float().contiguous(), down.float().contiguous())


def concatenate(updates: Sequence[Factors]) -> Factors:
    """Σ Δ_i, exactly: the concatenated factors [..., out, R] and [..., R, in], each `up` including its scale.
    R is the sum of the ranks.
    """
    folded = [update.with_unit_scale() for update in updates]
    return Factors(
        torch.cat([update.up for update in folded], dim=-1),
        torch.cat([update.down for update in folded], dim=-2),
    )


def pad_rank(update: Factors, rank: int) -> Factors:
    """The same update, with factors [..., out, rank] and [..., rank, in] padded with zeros; unchanged if its
    rank is not smaller."""
    missing = rank - update.rank
    if missing <= 0:
        return update
    return Factors(
        torch.nn.functional.pad(update.up, (0, missing)),
        torch.nn.functional.pad(update.down, (0, 0, 0, missing)),
        update.scale,
    )


def inner_product(one: Factors, other: Factors) -> float:
    """⟨Δ_1, Δ_2⟩ (Frobenius): the sum of (up_1ᵀ up_2) ∘ (down_1 down_2ᵀ), in float64."""
    a, b = one.double(), other.double()
    product = (a.up.mT @ b.up) * (a.down @ b.down.mT)
    return float(product.sum()) * one.scale * other.scale


def row_inner_products(one: Factors, other: Factors) -> Tensor:
    """⟨Δ_1, Δ_2⟩ of each row, [..., out] float64. For columns, pass updates from `transpose`."""
    a, b = one.double(), other.double()
    return ((a.up @ (a.down @ b.down.mT)) * b.up).sum(-1) * (one.scale * other.scale)


def transpose(update: Factors) -> Factors:
    """The transposed update Δᵀ, [..., in, out]."""
    return Factors(update.down.mT, update.up.mT, update.scale)


def gram_matrix(updates: Sequence[Factors]) -> Tensor:
    """All inner products, [T, T] float64; summed over a batch. Computed by one product of stacked factors."""
    scales = torch.tensor([update.scale for update in updates], dtype=torch.float64)
    up = torch.cat([update.up.double() for update in updates], dim=-1)
    down = torch.cat([update.down.double() for update in updates], dim=-2)
    product = (up.mT @ up) * (down @ down.mT)
    ranks = [update.rank for update in updates]
    member = torch.repeat_interleave(torch.diag(scales), torch.tensor(ranks), dim=0)  # [R, T]
    return member.mT @ product.reshape(-1, *product.shape[-2:]).sum(0) @ member


def orthonormal_bases(update: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal Q_u [..., out, k] and Q_vᵀ [..., l, in], core [..., k, l]: Δ = Q_u · core · Q_vᵀ."""
    left, right = basis_of(update.up), basis_of(update.down.mT)
    return left.vectors, (left.upper @ right.upper.mT) * update.scale, right.vectors.mT


def decompose(update: Factors, rank: int | None = None) -> Decomposition:
    """The singular value decomposition of Δ [..., out, in] in float64, through bases of the factors and an
    r×r problem.

    Returns all singular values; with `rank`, only that many singular vectors, which are most of the work.
    """
    left, right = basis_of(update.up), basis_of(update.down.mT)
    core = (left.upper @ right.upper.mT) * update.scale
    inside, values, outside = torch.linalg.svd(core, full_matrices=False)
    return Decomposition(left.times(inside[..., :rank]), values, right.times(outside[..., :rank, :].mT).mT)


def decompose_dense(delta: Tensor, rank: int | None = None, guess: Tensor | None = None) -> Decomposition:
    """Like `decompose`, for a dense Δ [..., out, in].

    For a `rank` that is small compared with the sides, only `rank` triplets are computed, by iteration; the
    energy that they keep is within `krylov.TOLERANCE` of the maximum. Rows of `guess` [..., n, in] that are
    close to right singular vectors make it faster. Otherwise O(out·in·min(out, in)).
    """
    matrices = delta.reshape(-1, *delta.shape[-2:])
    guesses = [None] * len(matrices) if guess is None else guess.reshape(-1, *guess.shape[-2:])
    beyond, found = 0.0, []
    for matrix, near in zip(matrices, guesses, strict=True):
        triplets, left_over = _triplets(matrix, rank, near)
        found.append(triplets)
        beyond += left_over
    left, values, right = (torch.stack(part) for part in zip(*found, strict=True))
    lead = delta.shape[:-2]
    return Decomposition(
        left.reshape(*lead, *left.shape[1:]),
        values.reshape(*lead, -1),
        right.reshape(*lead, *right.shape[1:]),
        beyond,
    )


def _triplets(matrix: Tensor, rank: int | None, guess: Tensor | None) -> tuple[Triplets, float]:
    """The leading triplets, and the energy of the others."""
    found = None if rank is None else leading_triplets(matrix, rank, guess)
    if found is not None:
        (left, values, right), energy = found
        return (left, values, right), max(0.0, energy - float(values.square().sum()))
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (left[:, :rank], values[:rank], right[:rank]), float(values[rank:].square().sum()) if rank else 0.0


def numerical_rank(values: Tensor, share: float = NEGLIGIBLE) -> int:
    """The number of singular values [..., k], descending, that exceed this share of the largest: at least 1,
    and for a batch the maximum over its members.
    """
    return max(1, int((values > share * values[..., :1]).sum(-1).max()))


def rank_for(values: Tensor, energy: float) -> int:
    """The smallest rank that keeps this share (0 to 1) of Σσ², with σ [..., k] descending, in every member of
    a batch; at least 1.
    """
    squares = values.square()
    total = squares.sum(-1, keepdim=True)
    kept = torch.where(total > 0, torch.cumsum(squares, -1) / total, 1.0)  # a zero update loses nothing
    enough = (kept < energy - 1e-12).sum(-1) + 1
    return max(1, min(int(enough.max()), values.shape[-1]))
