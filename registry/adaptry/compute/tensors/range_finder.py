"""The leading part of a dense matrix by a randomised range finder (Halko et al., arXiv 0909.4061).

It makes a fixed, small number of passes over the matrix, for any spectrum. The result is slightly worse than
the best approximation, but its loss is known exactly, since a projection loses ‖Δ‖² − Σσ². Passes are
computed in float32, the last one and all sums in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptry.compute.tensors.krylov import energy_of
from adaptry.compute.tensors.lowrank import Decomposition, decompose_dense, rank_for

OVERSAMPLING = 16
"""Columns in addition to the rank, so that the range includes nearly all of the requested directions."""
POWER = 2
"""Power iterations (Δ·Δᵀ) before the range is computed; they separate the singular values."""
_SMALL = 384  # matrices with sides up to this are decomposed completely, which is cheaper
_FIRST = 16  # the rank that is tried first for a requested energy
_RUN = 8 << 20  # elements that are converted to float64 at a time


def decompose_to_rank(delta: Tensor, rank: int, seed: int) -> Decomposition:
    """At least the first `rank` triplets of Δ [out, in] float32 (all of them, if there are no more);
    `tail_energy` is exact.
    """
    if min(delta.shape) <= max(_SMALL, 4 * (rank + OVERSAMPLING)):
        return decompose_dense(delta)
    return _projected(delta, rank + OVERSAMPLING, seed)


def decompose_to_energy(delta: Tensor, share: float, seed: int) -> tuple[Decomposition, int]:
    """A decomposition of Δ [out, in] float32, and its smallest rank that keeps this share (0 to 1) of ‖Δ‖².
    Tries the ranks 16, 32, 64, … by randomised subspace iteration (Halko et al., arXiv 0909.4061).
    """
    rank = _FIRST
    while True:
        found = decompose_to_rank(delta, rank, seed)
        kept = found.values.square().cumsum(-1)
        enough = int((kept < share * found.energy * (1 - 1e-12)).sum()) + 1
        if enough <= min(rank, len(found.values)):
            return found, enough
        if len(found.values) == min(delta.shape):
            return found, rank_for(found.values, share)
        rank *= 2


def _projected(delta: Tensor, columns: int, seed: int) -> Decomposition:
    """Δ projected on the range of Δ·(ΔᵀΔ)^POWER·Ω, [out, columns]."""
    generator = torch.Generator().manual_seed(seed)
    image = delta @ torch.randn(delta.shape[1], columns, generator=generator)
    for _ in range(POWER):
        image = delta @ torch.linalg.qr(delta.mT @ torch.linalg.qr(image)[0])[0]
    basis = torch.linalg.qr(image.double())[0]
    height = max(1, _RUN // delta.shape[1])
    inside = basis.new_zeros(columns, delta.shape[1])
    for first in range(0, delta.shape[0], height):
        rows = slice(first, first + height)
        inside.addmm_(basis[rows].mT, delta[rows].double())
    left, values, right = torch.linalg.svd(inside, full_matrices=False)
    beyond = max(0.0, energy_of(delta) - float(values.square().sum()))
    return Decomposition(basis @ left, values, right, beyond)
