"""SCE's three steps, block by block: select by variance, weigh by energy, erase minorities.

Wan et al., FuseChat (arXiv 2408.07990, §3.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from adaptry.compute.combining.dense_rows import DenseRows, RowBlock
from adaptry.compute.combining.sparsity import magnitude


def select_and_weigh(updates: Sequence[DenseRows], share: float) -> Tensor:
    """Σ η_i δ_i / Σ η_i over the i with the elected sign, [E, out, in] in float32.

    Of the elements whose variance over the updates is not 0, the `share` that varies most is selected (all,
    if there is one update); η_i ∝ Σ δ_i² over the selected elements.
    """

    def blocks() -> Iterator[tuple[RowBlock, Tensor]]:
        for place in updates[0].row_blocks():
            yield place, torch.stack([rows.block(place) for rows in updates])

    def variances() -> Iterator[Tensor]:
        return (_variance(stacked) for _, stacked in blocks())

    minimum = 0.0
    if share < 1 and len(updates) > 1:
        varying = sum(int(torch.count_nonzero(variance)) for variance in variances())
        count = int(share * varying)
        minimum = magnitude([variances], count) if count else float("inf")
    energies = torch.zeros(len(updates), dtype=torch.float64)
    for _, stacked in blocks():
        energies += _selected(stacked, minimum).square_().sum(dim=(1, 2), dtype=torch.float64)
    result = torch.empty(updates[0].shape)
    for (member, rows), stacked in blocks():
        result[member, rows] = _erase_minority_signs(_selected(stacked, minimum), energies)
    return result


def _variance(stacked: Tensor) -> Tensor:
    return (
        (stacked - stacked.mean(dim=0)).square_().mean(dim=0)
    )  # `var` over the first dimension would be ten times slower


def _selected(stacked: Tensor, minimum: float) -> Tensor:
    return stacked if minimum == 0 else stacked * (_variance(stacked) >= minimum)


def _erase_minority_signs(stacked: Tensor, energies: Tensor) -> Tensor:
    total = energies.sum()
    weights = (energies / total if total > 0 else torch.ones_like(energies)).float().view(-1, 1, 1)
    direction = torch.where(stacked.sum(dim=0) >= 0, 1.0, -1.0)
    agreeing = stacked.mul_(direction).clamp_(min=0)
    divisor = (weights * (agreeing > 0)).sum(dim=0)
    merged = agreeing.mul_(weights).sum(dim=0).mul_(direction)
    return merged / torch.where(divisor == 0, 1.0, divisor)
