"""Orthogonal matrices from trained numbers: skew matrices and Cayley's transform, in PEFT's order of
operations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def side_of(numbers: int) -> int:
    """The side of a skew matrix with `numbers` numbers above its diagonal. Raises `ValueError` if there is
    none.
    """
    side = (1 + math.isqrt(1 + 8 * numbers)) // 2
    if side * (side - 1) // 2 != numbers:
        raise ValueError(f"{numbers} numbers do not fill the triangle of a skew matrix")
    return side


def skew(numbers: Tensor) -> Tensor:
    """The skew-symmetric matrices [..., n, n] with the numbers [..., n(n−1)/2] above the diagonal."""
    import torch

    side = side_of(numbers.shape[-1])
    rows, columns = torch.triu_indices(side, side, 1)
    upper = torch.zeros(*numbers.shape[:-1], side, side, dtype=numbers.dtype)
    upper[..., rows, columns] = numbers
    return upper - upper.transpose(-2, -1)


def block_diagonal(blocks: Tensor) -> Tensor:
    """The matrix [n·a, n·b] with the blocks [n, a, b] on its diagonal."""
    import torch

    whole: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]  # torch has no types for it
    return whole


def cayley(matrix: Tensor, sign: int = -1) -> Tensor:
    """(I + sQ)(I − sQ)⁻¹ [n, n], exactly. `sign` is −1 for OFT and BOFT, +1 for PSOFT."""
    import torch

    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand_as(matrix)
    signed = sign * matrix
    turned: Tensor = torch.linalg.solve(one - signed, one + signed, left=False)
    return turned


def cayley_neumann(matrix: Tensor, terms: int) -> Tensor:
    """The rotation [n, n] with the series I + 2Q + 2Q² + … + Qᵗ⁻¹ instead of the inverse. Since PEFT 0.18 the
    last term counts once.
    """
    import torch

    result = torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand_as(matrix).clone()
    if terms > 1:
        result.add_(matrix, alpha=2.0)
    if terms > 2:
        power = matrix @ matrix
        result.add_(power, alpha=2.0)
        for _ in range(3, terms - 1):
            power = power @ matrix
            result.add_(power, alpha=2.0)
        result.add_(power @ matrix)
    return result
