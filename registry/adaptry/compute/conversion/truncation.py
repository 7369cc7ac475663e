"""Truncates an update to a rank or an energy, and measures the error of the written factors.

The reported ‖Δ − Δ'‖² is computed from the numbers that are written, and not from theory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adaptry.compute.tensors.lowrank import Factors, decompose, decompose_dense, rank_for
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class RankLimit:
    """The limit of an update: a rank, or the smallest rank that keeps a share of Σσ²; neither: unchanged."""

    rank: int | None = None
    energy: float | None = None

    def rank_for(self, values: Tensor) -> int:
        """The rank for these singular values [..., k], descending: `rank`, or the smallest one that keeps
        `energy` in every member of a batch; without either, k.
        """
        if self.energy is not None:
            return rank_for(values, self.energy)
        return self.rank or values.shape[-1]


def truncate(update: Factors, limit: RankLimit) -> Factors:
    """The closest update within the limit, as float32 factors [..., out, k] and [..., k, in]; the same
    factors if they are already within it."""
    if limit.energy is None and (limit.rank is None or limit.rank >= update.rank):
        return update
    found = decompose(update, limit.rank)
    rank = limit.rank_for(found.values)
    return update if rank >= update.rank else found.truncate(rank)


def truncate_dense(update: Tensor, limit: RankLimit) -> Factors:
    """Like `truncate`, for a dense update [out, in] in float32."""
    found = decompose_dense(update, limit.rank)
    return found.truncate(limit.rank_for(found.values))


def measure_dense_error(exact: Tensor, approximation: Factors) -> Mapping[str, float]:
    """Like `rounding.measure_error`, compared with a dense update [out, in] in float32; sums in float64."""
    difference = torch.addmm(exact, approximation.with_unit_scale().up, approximation.down, alpha=-1.0)
    return {"energy": _square(exact), "lost": _square(difference), "rank": float(approximation.rank)}


def _square(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
