"""Results of the form Σ c_i Δ_i, where the c_i depend on the norms of the updates and the angles between
them.

The Gram matrix has all norms and angles, and can be computed from factors without forming an update. The
result is the concatenation of the factors, exactly. An adapter without an update at a site counts as a zero
update there, since that is its effect on the model; an adapter with weight 0 does not count. The experts of a
fused parameter are one update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors


def counted_inputs(inputs: CombineInputs) -> list[int]:
    """The positions of the recipe's inputs that count here, including those without an update."""
    return [place for place, weight in enumerate(inputs.all_weights) if weight]


def gram_of_inputs(inputs: CombineInputs, places: Sequence[int]) -> Tensor:
    """⟨Δ_i, Δ_j⟩ of the inputs at `places`, [N, N] in float64; 0 for inputs without an update."""
    import torch

    from adaptry.compute.tensors.lowrank import gram_matrix

    table = torch.zeros(len(inputs.all_weights), len(inputs.all_weights), dtype=torch.float64)
    held = torch.tensor(inputs.input_positions)
    table[held.unsqueeze(1), held] = gram_matrix(inputs.updates)
    wanted = torch.tensor(places)
    return table[wanted.unsqueeze(1), wanted]


def weights_of_inputs(inputs: CombineInputs, places: Sequence[int]) -> Tensor:
    """The weights of the inputs at `places`, [N] in float64."""
    import torch

    return torch.tensor([inputs.all_weights[place] for place in places], dtype=torch.float64)


def norms_and_cosines(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The norms [N] and the cosines [N, N], in float64; every cosine with a zero update is 0."""
    import torch

    lengths = gram.diagonal().clamp(min=0).sqrt()
    outer = lengths.unsqueeze(1) * lengths
    cosines = torch.where(outer > 0, gram / torch.where(outer > 0, outer, 1), 0).clamp(-1, 1)
    return lengths, cosines


def linear_combination(inputs: CombineInputs, places: Sequence[int], coefficients: Tensor) -> Factors:
    """Σ c_i Δ_i over the inputs at `places`, with coefficients c [N] of any dtype, as float32 factors
    [..., out, R] and [..., R, in], with R the sum of the ranks. Inputs with coefficient 0 add no rank; if all
    are 0, the result is a zero update.
    """
    from adaptry.compute.tensors.lowrank import concatenate

    by_place = dict(zip(places, coefficients.tolist(), strict=True))
    pairs = [
        (update, by_place.get(place, 0.0))
        for place, update in zip(inputs.input_positions, inputs.updates, strict=True)
    ]
    scaled = [update.scaled_by(coefficient) for update, coefficient in pairs if coefficient]
    return concatenate(scaled or [pairs[0][0].scaled_by(0.0)])
