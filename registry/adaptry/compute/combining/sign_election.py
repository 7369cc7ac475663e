"""Fuses several updates element by element: their sum, or the mean of those that agree on the sign.

The election is that of TIES (Yadav et al., arXiv 2306.01708, §3): for each element the updates vote on a
sign, and only updates with the elected sign count. The paper has no weights; `sign` and `divide` define how
they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from adaptry.compute.combining.dense_rows import FuseFunction
from adaptry.compute.combining.method import CombineInputs
from adaptry.core.lazy_dataclass import dataclass


def fuse_by_sum(inputs: CombineInputs) -> FuseFunction:
    """λ Σ w_i δ_i, divided by Σ w_i with `normalize`."""
    scale = inputs.number("lambda")
    total = sum(inputs.weights)
    if inputs.flag("normalize") and abs(total) >= 1e-8:
        scale /= total
    return partial(_summed, weights=[weight * scale for weight in inputs.weights])


def _summed(updates: Tensor, weights: Sequence[float]) -> Tensor:
    return torch.einsum("n,nij->ij", torch.tensor(weights), updates)


def fuse_by_election(inputs: CombineInputs) -> FuseFunction:
    """λ times the mean of the elements w_i δ_i whose sign is the elected one; see `SIGN` and `DIVIDE`."""
    return Election(
        tuple(inputs.weights), inputs.word("sign"), inputs.word("divide"), inputs.number("lambda")
    )


@dataclass(frozen=True, slots=True)
class Election:
    """The election of blocks, [T, rows, in] to [rows, in]."""

    weights: tuple[float, ...]
    sign: str
    divide: str
    scale: float

    def __call__(self, updates: Tensor) -> Tensor:
        return _elected(updates, self.weights, self.sign, self.divide, self.scale)


def _elected(updates: Tensor, weights: Sequence[float], sign: str, divide: str, scale: float) -> Tensor:
    column = torch.tensor(weights).view(-1, 1, 1)
    if sign != "unweighted" and any(weight != 1 for weight in weights):
        updates.mul_(column)
    votes = _sum(updates.sign() if sign == "frequency" else updates)
    # A tie counts as plus, as in PEFT and mergekit; `votes` has no negative zero. (`where` is slower.)
    direction = torch.copysign(torch.ones_like(votes), votes)
    agreeing = updates.mul_(direction).clamp_(min=0)  # disagreeing elements become 0, like pruned ones
    agrees = agreeing.sign() if divide != "none" else None
    if sign == "unweighted":
        agreeing = agreeing.mul_(column)
    merged = _sum(agreeing).mul_(direction)
    if agrees is not None:
        merged /= _divisor(agrees.mul_(column)) if divide == "weights" else _sum(agrees).clamp_(min=1)
    return merged.mul_(scale) if scale != 1 else merged


def _divisor(agreeing: Tensor) -> Tensor:
    """The sums of the agreeing weights; 1 where they are 0."""
    total = _sum(agreeing)
    return total.masked_fill_(total == 0, 1.0)


def _sum(updates: Tensor) -> Tensor:
    """The sum over the first dimension. For two tensors, an addition gives the same bits in less time; adding
    0 turns a sum of two negative zeros into the zero that `sum` gives.
    """
    return (updates[0] + updates[1]).add_(0.0) if len(updates) == 2 else updates.sum(dim=0)
