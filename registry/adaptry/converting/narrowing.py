"""An update brought to a rank or an energy, rounded to the dtype it is written in, and measured as it then is.

What is reported is ‖Δ − Δ'‖² of the very numbers that are written, not what theory says was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptry.deriving.dtypes import dtype_of
from adaptry.tensors.lowrank import Factors, concatenated, decomposed, decomposed_dense, inner, rank_for


@dataclass(frozen=True, slots=True)
class Limit:
    """What an update is brought to: a rank, or the smallest rank that keeps a share of Σσ²; neither: as it is."""

    rank: int | None = None
    energy: float | None = None

    def of(self, values: Tensor) -> int:
        """The rank for these singular values."""
        if self.energy is not None:
            return rank_for(values, self.energy)
        return self.rank or values.shape[-1]


def narrowed(update: Factors, limit: Limit) -> Factors:
    """The nearest update within the limit; the very same factors where they are within it already."""
    if limit.energy is None and (limit.rank is None or limit.rank >= update.rank):
        return update
    found = decomposed(update, limit.rank)
    rank = limit.of(found.values)
    return update if rank >= update.rank else found.truncated(rank)


def narrowed_dense(update: Tensor, limit: Limit) -> Factors:
    """As `narrowed`, of a dense update [out, in], float32."""
    found = decomposed_dense(update, limit.rank)
    return found.truncated(limit.of(found.values))


def rounded(update: Factors, dtype: str) -> Factors:
    """With scale 1, and the values that a file of `dtype` keeps."""
    whole, to = update.folded(), dtype_of(dtype)
    return Factors(whole.up.to(to).float(), whole.down.to(to).float())


def measured(own: Factors, made: Factors) -> Mapping[str, float]:
    """The figures of a module: what it should be is `own`. The same factors, its scale in them, have lost nothing."""
    folded = own.folded()
    if made.scale == folded.scale and made.up.equal(folded.up) and made.down.equal(folded.down):
        return {"energy": inner(own, own), "lost": 0.0, "rank": float(made.rank)}
    difference = concatenated([own.double(), made.double().times(-1.0)])
    lost = max(0.0, inner(difference, difference))
    return {"energy": inner(own, own), "lost": lost, "rank": float(made.rank)}


def measured_dense(own: Tensor, made: Factors) -> Mapping[str, float]:
    """As `measured`, against a dense update [out, in], float32; sums in float64."""
    difference = torch.addmm(own, made.folded().up, made.down, alpha=-1.0)
    return {"energy": _square(own), "lost": _square(difference), "rank": float(made.rank)}


def _square(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
