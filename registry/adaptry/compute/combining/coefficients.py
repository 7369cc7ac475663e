"""Results that are a sum Σ c_i Δ_i, where lengths and angles of the updates give the c_i.

Lengths and angles are all in the Gram matrix, which factors give without forming an update; the result is the
factors side by side, exactly. An adapter without an update at a site counts as an update of zero there, since
that is what it does to the model; an adapter of weight 0 does not count at all. The experts of a fused
parameter are one update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors


def counted_inputs(inputs: CombineInputs) -> list[int]:
    """The places of the recipe's inputs that count here; those without an update are among them."""
    return [place for place, weight in enumerate(inputs.all_weights) if weight]


def gram_of_inputs(inputs: CombineInputs, places: Sequence[int]) -> Tensor:
    """⟨Δ_i, Δ_j⟩ of the inputs at these places, [N, N] float64; 0 for those without an update."""
    import torch

    from adaptry.compute.tensors.lowrank import gram_matrix

    table = torch.zeros(len(inputs.all_weights), len(inputs.all_weights), dtype=torch.float64)
    held = torch.tensor(inputs.input_positions)
    table[held.unsqueeze(1), held] = gram_matrix(inputs.updates)
    wanted = torch.tensor(places)
    return table[wanted.unsqueeze(1), wanted]


def weights_of_inputs(inputs: CombineInputs, places: Sequence[int]) -> Tensor:
    """[N] float64."""
    import torch

    return torch.tensor([inputs.all_weights[place] for place in places], dtype=torch.float64)


def norms_and_cosines(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The lengths [N] and the cosines [N, N]; the cosine with an update of zero is 0, its own too."""
    import torch

    lengths = gram.diagonal().clamp(min=0).sqrt()
    outer = lengths.unsqueeze(1) * lengths
    cosines = torch.where(outer > 0, gram / torch.where(outer > 0, outer, 1), 0).clamp(-1, 1)
    return lengths, cosines


def linear_combination(inputs: CombineInputs, places: Sequence[int], coefficients: Tensor) -> Factors:
    """Σ c_i Δ_i over the inputs at these places. Coefficients of 0 leave nothing behind, not even rank."""
    from adaptry.compute.tensors.lowrank import concatenate

    by_place = dict(zip(places, coefficients.tolist(), strict=True))
    pairs = [
        (update, by_place.get(place, 0.0))
        for place, update in zip(inputs.input_positions, inputs.updates, strict=True)
    ]
    scaled = [update.scaled_by(coefficient) for update, coefficient in pairs if coefficient]
    return concatenate(scaled or [pairs[0][0].scaled_by(0.0)])
