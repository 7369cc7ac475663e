"""An update brought to a rank or an energy, and a dense one measured against what is written of it.

What is reported is ‖Δ − Δ'‖² of the very numbers that are written, not what theory says was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptry.compute.tensors.lowrank import Factors, decompose, decompose_dense, rank_for


@dataclass(frozen=True, slots=True)
class RankLimit:
    """What an update is brought to: a rank, or the smallest that keeps a share of Σσ²; neither: as it is."""

    rank: int | None = None
    energy: float | None = None

    def rank_for(self, values: Tensor) -> int:
        """The rank for these singular values."""
        if self.energy is not None:
            return rank_for(values, self.energy)
        return self.rank or values.shape[-1]


def truncate(update: Factors, limit: RankLimit) -> Factors:
    """The nearest update within the limit; the very same factors where they are within it already."""
    if limit.energy is None and (limit.rank is None or limit.rank >= update.rank):
        return update
    found = decompose(update, limit.rank)
    rank = limit.rank_for(found.values)
    return update if rank >= update.rank else found.truncate(rank)


def truncate_dense(update: Tensor, limit: RankLimit) -> Factors:
    """As `truncate`, of a dense update [out, in], float32."""
    found = decompose_dense(update, limit.rank)
    return found.truncate(limit.rank_for(found.values))


def measure_dense_error(own: Tensor, made: Factors) -> Mapping[str, float]:
    """As `rounding.measure_error`, against a dense update [out, in], float32; sums in float64."""
    difference = torch.addmm(own, made.with_unit_scale().up, made.down, alpha=-1.0)
    return {"energy": _square(own), "lost": _square(difference), "rank": float(made.rank)}


def _square(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
