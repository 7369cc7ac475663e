"""Leading singular triplets of a dense matrix by block Krylov iteration, with a bound that says when to stop.

Block Golub–Kahan with full reorthogonalisation, in float64 (Musco and Musco, arXiv 1504.05477): each step
multiplies a few columns by the matrix and its transpose, where a full decomposition costs out·in·min(out,
in). The start is drawn with a fixed seed, so the same matrix gives the same result.
"""

from __future__ import annotations

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]

TOLERANCE = 1e-7
"""The share of the best approximation's energy that may be missed."""
_SPARE = 8  # additional columns, which make the last requested values converge faster
_SEED = 0


def leading_triplets(matrix: Tensor, rank: int) -> Triplets | None:
    """left [out, k], values [k] in descending order, right [k, in] of a float64 `matrix` [out, in], k =
    `rank`.

    None if the iteration would be slower than a full decomposition, or did not converge; the caller then
    decomposes completely.
    """
    height, width = matrix.shape
    columns = rank + _SPARE
    most = min(height, width) // 3
    if columns * 2 > most:
        return None
    total = float(torch.linalg.vector_norm(matrix)) ** 2
    generator = torch.Generator().manual_seed(_SEED)
    start = torch.randn(width, columns, dtype=matrix.dtype, generator=generator)
    basis, _ = _orthonormal(matrix @ start, None)
    block, seen = basis, matrix.new_empty(width, 0)
    while True:
        image = matrix.mT @ block
        seen = torch.cat([seen, image], dim=1)  # matrixᵀ · basis
        values, vectors = torch.linalg.eigh(seen.mT @ seen)
        values, vectors = values.flip(0), vectors.flip(1)
        block, beyond = _orthonormal(matrix @ image, basis)
        residuals = (beyond @ vectors[-columns:, :rank]).norm(dim=0)
        if _missed(values, residuals, rank, total) <= TOLERANCE * float(values[:rank].sum()):
            break
        if basis.shape[1] + columns > most:
            return None
        basis = torch.cat([basis, block], dim=1)
    right, singular, inside = torch.linalg.svd(seen, full_matrices=False)
    return basis @ inside[:rank].mT, singular[:rank], right[:, :rank].mT


def _orthonormal(columns: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor]:
    """Orthonormal columns, orthogonal to the basis, and the triangular factor.

    Orthogonalising twice is sufficient, even if only rounding errors are left after the first time.
    """
    triangle = None
    for _ in range(2):
        if basis is not None:
            columns = columns - basis @ (basis.mT @ columns)
        columns, upper = torch.linalg.qr(columns)
        triangle = upper if triangle is None else upper @ triangle
    assert triangle is not None
    return columns, triangle


def _missed(values: Tensor, residuals: Tensor, rank: int, total: float) -> float:
    """The maximum error of the first `rank` Ritz values (squared singular values): by Kato and Temple, the
    square of the residual divided by the gap to the other values, or the residual; at most the remaining
    energy.
    """
    gaps = (values[:rank] - values[rank]).clamp(min=torch.finfo(values.dtype).tiny)
    short = torch.minimum(residuals, residuals.square() / gaps)
    return min(float(short.sum()), total - float(values[:rank].sum()))
