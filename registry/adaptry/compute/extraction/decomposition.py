"""Decomposes one weight's change into two thin factors, as closely as the rank (or energy) allows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.extraction.target_choice import TargetChoice
from adaptry.compute.tensors.lowrank import Factors, pad_rank
from adaptry.compute.tensors.range_finder import decompose_to_energy, decompose_to_rank


def decompose_delta(
    delta: Tensor, choice: TargetChoice, recipe: ExtractRecipe, seed: int
) -> tuple[Factors, Mapping[str, float]]:
    """Factors of `delta` (float32, in the weight's shape in memory), and `ComputedModule`'s figures.

    `lost` is exactly the loss of the projection, ‖Δ‖² − Σσ² of the kept values, in float64. The loss from
    rounding the factors to their dtype is added when they are written.
    """
    site = choice.site
    assert site is not None
    matrices = delta if site.kind == "parameter" else delta.reshape(1, delta.shape[0], -1)
    found = [
        _factors(matrix.mT if choice.is_transposed else matrix, recipe, seed + place)
        for place, matrix in enumerate(matrices)
    ]
    rank = max(update.rank for update, _, _ in found)
    updates = [pad_rank(update, rank) for update, _, _ in found]
    figures = {
        "energy": sum(energy for _, energy, _ in found),
        "lost": sum(lost for _, _, lost in found),
        "rank": float(rank),
    }
    if site.experts == 1:
        return updates[0], figures
    up = torch.stack([update.up for update in updates])
    down = torch.stack([update.down for update in updates])
    return Factors(up, down), figures


def _factors(matrix: Tensor, recipe: ExtractRecipe, seed: int) -> tuple[Factors, float, float]:
    """Factors of one matrix [out, in], its energy, and the lost energy."""
    if recipe.energy is not None:
        found, rank = decompose_to_energy(matrix, recipe.energy, seed)
    else:
        assert recipe.rank is not None
        rank = min(recipe.rank, *matrix.shape)
        found = decompose_to_rank(matrix, rank, seed)
    return found.truncate(rank), found.energy, found.lost_energy(rank)
