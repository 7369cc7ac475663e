"""Orthogonal matrices from trained numbers: skew matrices and Cayley's transform, in PEFT's order of
operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats, ModuleArrays

    Doubles = NDArray[np.floating[Any]]


def side_of(numbers: int) -> int:
    """The side of a skew matrix with `numbers` numbers above its diagonal. Raises `ValueError` if no side
    fits.
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
    rotated: Tensor = torch.linalg.solve(one - signed, one + signed, left=False)
    return rotated


def cayley_neumann(matrix: Tensor, terms: int) -> Tensor:
    """The rotation [n, n], computed by the series I + 2Q + 2Q² + … + Qᵗ⁻¹ instead of the inverse. Since PEFT
    0.18, the last term counts once.
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


def skew_arrays(numbers: Floats) -> Floats:
    """`skew` without torch: [blocks, n(n−1)/2] → [blocks, n, n]."""
    import numpy as np

    side = side_of(numbers.shape[-1])
    rows, columns = np.triu_indices(side, 1)
    upper = np.zeros((len(numbers), side, side), np.float32)
    upper[:, rows, columns] = numbers
    return upper - upper.transpose(0, 2, 1)


def cayley_neumann_arrays(parts: ModuleArrays, matrices: Floats, terms: int) -> Floats:
    """`cayley_neumann` without torch, of [blocks, n, n]; doubling is exact, so its order does not matter."""
    import numpy as np

    count, side, _ = matrices.shape

    def times_matrices(power: Floats) -> Floats:
        rows = np.ascontiguousarray(power.transpose(1, 0, 2)).reshape(side, count * side)
        return parts.rotated(rows, matrices).reshape(side, count, side).transpose(1, 0, 2)

    result = np.broadcast_to(np.eye(side, dtype=np.float32), matrices.shape).copy()
    if terms > 1:
        result += 2 * matrices
    if terms > 2:
        power = times_matrices(matrices)
        result += 2 * power
        for _ in range(3, terms - 1):
            power = times_matrices(power)
            result += 2 * power
        result += times_matrices(power)
    return result


_MAX_NUMBERS = 8 << 20
"""Maximum number of elements in all blocks that are solved without torch: 64 MB for each thread."""


def fits_without_torch(count: int, side: int) -> bool:
    """Whether `count` blocks of `side` × `side` elements are small enough for `cayley_transposed`."""
    return count * side * side <= _MAX_NUMBERS


def cayley_transposed(matrices: Iterable[Doubles], sign: int = -1) -> Doubles:
    """The transpose of `cayley` for skew-symmetric matrices [n, n], without torch: LAPACK solves one after
    the other. The transpose of (I + sQ)(I − sQ)⁻¹ is (I + sQ)⁻¹(I − sQ), since Q is skew-symmetric.
    """
    import numpy as np

    def one(matrix: Doubles) -> Doubles:
        identity = np.eye(len(matrix))
        rotated: Doubles = np.linalg.solve(identity + sign * matrix, identity - sign * matrix)
        return rotated

    return np.stack([one(matrix) for matrix in matrices])


class Rotation:
    """Multiplies rows [n, in] by the matrix with `blocks` [in/b, b, b] on its diagonal, in float64. A result
    is valid until the next call, so only one thread may use a `Rotation`.
    """

    def __init__(self, blocks: Doubles) -> None:
        import numpy as np

        self._blocks = blocks
        self._rows, self._result = np.empty((2, 0, 0))

    def __call__(self, rows: Doubles) -> Doubles:
        import numpy as np

        if self._result.shape[1:] != rows.shape[1:] or len(self._result) < len(rows):
            self._rows, self._result = np.empty((2, *rows.shape))
        wide, result = self._rows[: len(rows)], self._result[: len(rows)]
        wide[:] = rows
        side = self._blocks.shape[1]
        np.matmul(_by_block(wide, side), self._blocks, out=_by_block(result, side))
        return result


def _by_block(rows: Doubles, side: int) -> Doubles:
    return rows.reshape(len(rows), -1, side).transpose(1, 0, 2)
