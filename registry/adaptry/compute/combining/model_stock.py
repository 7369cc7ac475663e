"""Model Stock: scales the mean of the updates by a factor that depends only on the angles between them.

Fine-tunes for one task scatter around an unknown centre. The larger the angle between them, the more of each
is noise, and the closer to the base is the estimate of the centre.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from adaptry.compute.combining.coefficients import counted_inputs, gram_of_inputs, norms_and_cosines
from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_SINGULAR = 1e-6


def model_stock(inputs: CombineInputs) -> Factors:
    """t · mean(Δ_i), as concatenated factors [..., out, R] and [..., R, in], where t = N cos θ / (1 + (N−1)
    cos θ) and cos θ is the mean over pairs."""
    from adaptry.compute.tensors.lowrank import Factors, concatenate

    count = len(counted_inputs(inputs))
    total = concatenate(inputs.updates)
    if inputs.word("over") == "rows":
        reach = _interpolation_factor(_mean_cosines_of_rows(inputs, count), count) / count
        return Factors((total.up * reach.unsqueeze(-1)).to(total.up.dtype), total.down)
    return total.scaled_by(
        float(_interpolation_factor(_mean_cosine(inputs), count)) / count
    ).with_unit_scale()


def _interpolation_factor(cosine: Tensor, count: int) -> Tensor:
    """The factor t; 0 at the pole of the formula, as in mergekit."""
    import torch

    below = 1 + (count - 1) * cosine
    is_pole = below.abs() < _SINGULAR
    return torch.where(is_pole, 0, count * cosine / torch.where(is_pole, 1, below))


def _mean_cosine(inputs: CombineInputs) -> Tensor:
    import torch

    places = counted_inputs(inputs)
    if len(places) == 1:
        return torch.ones((), dtype=torch.float64)
    _, cosines = norms_and_cosines(gram_of_inputs(inputs, places))
    return (cosines.sum() - cosines.diagonal().sum()) / (len(places) * (len(places) - 1))


def _mean_cosines_of_rows(inputs: CombineInputs, count: int) -> Tensor:
    """The mean cosine of each row, [..., out] in float64; pairs in which one has no update here count as
    0.
    """
    import torch

    from adaptry.compute.tensors.lowrank import row_inner_products

    lengths = [row_inner_products(update, update).clamp(min=0).sqrt() for update in inputs.updates]
    if count == 1:
        return torch.ones_like(lengths[0])
    total = torch.zeros_like(lengths[0])
    for one, other in itertools.combinations(range(len(inputs.updates)), 2):
        product = lengths[one] * lengths[other]
        found = row_inner_products(inputs.updates[one], inputs.updates[other])
        total += torch.where(product > 0, found / torch.where(product > 0, product, 1), 0).clamp(-1, 1)
    return total / (count * (count - 1) / 2)


METHODS = (
    CombineMethod(
        "model_stock",
        "the mean of the updates, scaled according to the angles between them",
        model_stock,
        source="Jang et al., arXiv 2403.19522",
        parameters={
            "over": MethodParameter(
                "tensor",
                "compute angles of whole updates, or of each row (the weights of one output)",
                choices=("tensor", "rows"),
            )
        },
        inputs=(2, 64),
        uses_weights=False,
        differences=(
            "Equal to mergekit's, whose filter_wise is `over: rows` (except for rows shorter than 1e-3, whose"
            " cosines mergekit reduces). It is meant for fine-tunes for one task: for orthogonal adapters,"
            " little"
            " remains; for a module that only one of two adapters has, nothing; and if most angles exceed a"
            " right"
            " angle, the formula reverses the mean."
        ),
    ),
)
