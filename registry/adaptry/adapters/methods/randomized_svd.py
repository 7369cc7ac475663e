"""The leading singular directions of a matrix, found through a seeded random projection (arXiv 0909.4061).

The result equals `torch.svd_lowrank` after `torch.manual_seed`, bit for bit, but does not use the generator
that all threads share. Two of PEFT's methods do not save these directions, or values that depend on them, and
compute them again from the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def leading_directions(weight: Tensor, rank: int, *, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, rank], S [rank], Vᵀ [rank, in] of `weight` [out, in], fp32, after `steps` iterations."""
    import torch

    is_wide = weight.shape[0] < weight.shape[1]
    tall = weight.mH if is_wide else weight
    drawn = torch.randn(tall.shape[1], rank, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(tall @ drawn).Q
    for _ in range(steps):
        basis = torch.linalg.qr(tall @ torch.linalg.qr(tall.mH @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.mH @ tall, full_matrices=False)
    left = basis.matmul(left)
    return (right.mH, values, left.mH) if is_wide else (left, values, right)
