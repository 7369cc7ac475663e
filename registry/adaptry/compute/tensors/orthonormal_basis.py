"""Orthonormal bases of tall, thin matrices: X = Q · upper.

The Gram method (Cholesky of XᵀX) needs only one product with X and is several times faster than Householder's
QR. It has a relative error of about ε·κ² in the factor and in every singular value. κ is measured; if it is
too large (nearly dependent columns, columns of zeros), the slower QR is used, which is exact for all inputs.
Everything is computed in float64. If X is float32, it is converted one block of rows at a time, in cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adaptry.core.lazy_dataclass import dataclass

_WELL_CONDITIONED = 1e3
"""The largest ‖upper⁻¹‖ (Frobenius, columns of length 1) for the Gram method, whose error is then about 1e-16
· ‖upper⁻¹‖² = 1e-10.
"""
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Basis:
    """X = Q · upper, Q = columns @ mixing; `mixing` None: Q = columns. Q [..., m, k], upper [..., k, r]."""

    columns: Tensor
    mixing: Tensor | None
    upper: Tensor

    def times(self, inside: Tensor) -> Tensor:
        """Q @ inside, [..., m, n] float64, with one product of X's height."""
        if self.mixing is None:
            return self.columns @ inside
        mixed = self.mixing @ inside
        return torch.cat([block @ mixed for block in _widened(self.columns)], dim=-2)

    @property
    def vectors(self) -> Tensor:
        """Q as a dense tensor, [..., m, k] float64."""
        unit = torch.eye(self.upper.shape[-2], dtype=torch.float64)
        return self.columns if self.mixing is None else self.times(unit)


def basis_of(columns: Tensor) -> Basis:
    """A basis of the columns of X [..., m, r], float32 or float64; k = min(m, r)."""
    return _by_gram(columns) or _by_householder(columns)


def _widened(columns: Tensor) -> Iterator[Tensor]:
    for start in range(0, columns.shape[-2], _ROWS):
        yield columns[..., start : start + _ROWS, :].double()


def _by_householder(columns: Tensor) -> Basis:
    vectors, upper = torch.linalg.qr(columns.double())
    return Basis(vectors, None, upper)


def _by_gram(columns: Tensor) -> Basis | None:
    """A basis by the Gram method; None if it would not be exact enough for a member of the batch."""
    if columns.shape[-2] < columns.shape[-1]:
        return None
    first, *others = (block.mT @ block for block in _widened(columns))
    gram = sum(others, first)
    # Columns of length 1 are close to the best condition that a scaling of columns can reach (van der Sluis
    # 1969).
    lengths = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    if not bool((lengths > 0).all()):
        return None
    lower, failed = torch.linalg.cholesky_ex(gram / (lengths.unsqueeze(-1) * lengths.unsqueeze(-2)))
    if bool(failed.any()):
        return None
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype).expand_as(gram)
    inverse = torch.linalg.solve_triangular(lower.mT, unit, upper=True)
    if not bool((torch.linalg.matrix_norm(inverse) <= _WELL_CONDITIONED).all()):
        return None
    return Basis(columns, inverse / lengths.unsqueeze(-1), lower.mT * lengths.unsqueeze(-2))
