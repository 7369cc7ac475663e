"""Mean directions: the mean of updates as points on a sphere, at their mean norm.

The sum of updates that disagree is shorter than they are; a mean on the sphere preserves the norm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptry.compute.combining.coefficients import (
    counted_inputs,
    gram_of_inputs,
    linear_combination,
    norms_and_cosines,
    weights_of_inputs,
)
from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.core.errors import CheckFailed

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_EPSILON = 1e-8


def karcher(inputs: CombineInputs) -> Factors:
    """The direction with the smallest weighted sum of squared angles to the Δ_i, with norm Σ w_i‖Δ_i‖
    (weights sum to 1), as concatenated float32 factors [..., out, R] and [..., R, in], with R the sum of the
    ranks.

    Raises `CheckFailed` if this direction is not unique.
    """
    places = counted_inputs(inputs)
    lengths, cosines = norms_and_cosines(gram_of_inputs(inputs, places))
    weights = _summing_to_one(inputs, weights_of_inputs(inputs, places))
    present = lengths > 0
    if not bool(present.any()):
        return linear_combination(inputs, places, weights)
    shares = weights * present / (weights * present).sum()
    mean = _unit(inputs, shares, cosines)
    tolerance = inputs.number("tolerance")
    for _ in range(int(inputs.number("iterations"))):
        step = _mean_log_map(inputs, mean, shares, cosines)
        size = _length(step, cosines)
        if size < tolerance:
            break
        mean = _unit(inputs, math.cos(size) * mean + math.sin(size) / size * step, cosines)
    return linear_combination(inputs, places, _of_updates(mean, weights, lengths))


def multislerp(inputs: CombineInputs) -> Factors:
    """The direction of Σ w_i Δ_i/‖Δ_i‖, with norm Σ w_i‖Δ_i‖, as factors like those of `karcher`.
    Raises `CheckFailed` if the directions cancel.
    """
    places = counted_inputs(inputs)
    lengths, cosines = norms_and_cosines(gram_of_inputs(inputs, places))
    weights = weights_of_inputs(inputs, places)
    if inputs.flag("normalize"):
        weights = _summing_to_one(inputs, weights)
    if not bool((lengths > 0).any()):
        return linear_combination(inputs, places, weights)
    mean = _unit(inputs, weights * (lengths > 0), cosines)
    return linear_combination(inputs, places, _of_updates(mean, weights, lengths))


def _mean_log_map(inputs: CombineInputs, mean: Tensor, shares: Tensor, cosines: Tensor) -> Tensor:
    """Σ w_i log(u_i) at the mean, as coefficients [N] of the directions u_i."""
    import torch

    dots = (cosines @ mean).clamp(-1, 1)
    if bool(((dots < -1 + _EPSILON) & (shares != 0)).any()):
        raise CheckFailed(
            f"{inputs.site_name}: an update is opposite to the mean of all, so the mean on the sphere is not"
            " unique; choose another method for this module (modules: in the recipe), such as linear"
        )
    angles = torch.acos(dots)
    pulls = shares * torch.where(angles > 0, angles / torch.sin(torch.where(angles > 0, angles, 1)), 1)
    return pulls - (pulls @ dots) * mean


def _length(coefficients: Tensor, cosines: Tensor) -> float:
    return math.sqrt(max(0.0, float(coefficients @ cosines @ coefficients)))


def _unit(inputs: CombineInputs, coefficients: Tensor, cosines: Tensor) -> Tensor:
    length = _length(coefficients, cosines)
    if length < _EPSILON:
        raise CheckFailed(
            f"{inputs.site_name}: the directions of the updates cancel, so they have no mean direction;"
            " change the weights, or choose another method for this module (modules:"
            " in the recipe), such as linear"
        )
    return coefficients / length


def _summing_to_one(inputs: CombineInputs, weights: Tensor) -> Tensor:
    total = float(weights.sum())
    if abs(total) < _EPSILON:
        raise CheckFailed(
            f"{inputs.site_name}: the weights sum to 0, so they cannot be normalised; change one of them"
        )
    return weights / total


def _of_updates(mean: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    """Coefficients [N] of the Δ_i, from those of their directions."""
    import torch

    return mean * (weights @ lengths) * torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1), 0)


METHODS = (
    CombineMethod(
        "multislerp",
        "the direction of the weighted mean of directions, with the weighted mean norm",
        multislerp,
        source="mergekit's multislerp",
        parameters={"normalize": MethodParameter(True, "divide the weights by their sum")},
        differences=(
            "Equal to mergekit's with a base. mergekit also takes a step in the tangent space of the mean,"
            " where the weighted tangents always sum to 0, so this is the closed form. Directions that cancel"
            " are refused; mergekit adds two such updates."
        ),
    ),
    CombineMethod(
        "karcher",
        "the mean of the directions on the sphere, with the mean norm",
        karcher,
        source="Karcher 1977; mergekit's karcher, arXiv 2603.04972",
        parameters={
            "iterations": MethodParameter(10, "maximum number of steps", 1, 1000),
            "tolerance": MethodParameter(
                1e-5, "length of a step, in radians, below which it stops", 1e-12, 0.1
            ),
        },
        differences=(
            "mergekit takes the mean of complete models' weights, which have nearly the same direction, with"
            " equal weights; here it is the mean of the updates. Directions that cancel, or one opposite to"
            " the"
            " mean, are refused; mergekit then starts from the first input."
        ),
    ),
)
