"""Orthogonal matrices of trained numbers: skew matrices and Cayley's transform, in PEFT's operation order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def side_of(numbers: int) -> int:
    """The side of a skew matrix with so many numbers above its diagonal. Raises `ValueError` if none has."""
    side = (1 + math.isqrt(1 + 8 * numbers)) // 2
    if side * (side - 1) // 2 != numbers:
        raise ValueError(f"{numbers} numbers fill no triangle")
    return side


def skew(numbers: Tensor) -> Tensor:
    """[…, n(n−1)/2] above the diagonal → skew-symmetric [..., n, n]."""
    import torch

    side = side_of(numbers.shape[-1])
    rows, columns = torch.triu_indices(side, side, 1)
    upper = torch.zeros(*numbers.shape[:-1], side, side, dtype=numbers.dtype)
    upper[..., rows, columns] = numbers
    return upper - upper.transpose(-2, -1)


def block_diagonal(blocks: Tensor) -> Tensor:
    """[n, a, b] → [n·a, n·b]."""
    import torch

    whole: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]  # torch has no types for it
    return whole


def cayley(matrix: Tensor, sign: int = -1) -> Tensor:
    """(I + sQ)(I − sQ)⁻¹, exactly: `sign` −1 as OFT and BOFT turn, +1 as PSOFT."""
    import torch

    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand_as(matrix)
    signed = sign * matrix
    turned: Tensor = torch.linalg.solve(one - signed, one + signed, left=False)
    return turned


def cayley_neumann(matrix: Tensor, terms: int) -> Tensor:
    """The series I + 2Q + 2Q² + … + Qᵗ⁻¹ for the inverse; the last term counts once since PEFT 0.18."""
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
