"""Interpolates two updates along the arc between them, so that they do not cancel midway."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.compute.combining.coefficients import gram_of_inputs, linear_combination
from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_BOTH = (0, 1)
_PARALLEL = 1e-8
"""sin² of the angle below which updates count as parallel, where sin(tθ)/sin θ is practically t."""


def slerp(inputs: CombineInputs) -> Factors:
    """(sin((1−t)θ)·Δ_1 + sin(tθ)·Δ_2) / sin θ, as concatenated float32 factors [..., out, r_1 + r_2] and
    [..., r_1 + r_2, in].
    """
    return _interpolate(inputs, inputs.number("t"))


def nuslerp(inputs: CombineInputs) -> Factors:
    """Like `slerp`, with t = w_2 / (w_1 + w_2), for whole updates, or for each row or column with its own
    angle. Float32 factors, as those of `slerp`.
    """
    total = sum(inputs.all_weights)
    share = 0.5 if abs(total) < 1e-6 else inputs.all_weights[1] / total
    match inputs.word("over"):
        case "rows":
            return _row_by_row(inputs, share)
        case "columns":
            return _column_by_column(inputs, share)
        case _:
            return _interpolate(inputs, share)


def _interpolate(inputs: CombineInputs, share: float) -> Factors:
    import torch

    table = gram_of_inputs(inputs, _BOTH)
    return linear_combination(inputs, _BOTH, torch.stack(_arc(table[0, 0], table[0, 1], table[1, 1], share)))


def _arc(first: Tensor, between: Tensor, second: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Both coefficients, elementwise from ⟨1,1⟩, ⟨1,2⟩ and ⟨2,2⟩. A zero update is orthogonal to all
    others.
    """
    import torch

    lengths = (first * second).clamp(min=0).sqrt()
    cosine = torch.where(lengths > 0, between / torch.where(lengths > 0, lengths, 1), 0).clamp(-1, 1)
    straight = 1 - cosine.square() <= _PARALLEL
    angle = torch.acos(torch.where(straight, 0, cosine))
    near = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / torch.sin(angle))
    far = torch.where(straight, share, torch.sin(share * angle) / torch.sin(angle))
    return near, far


def _row_by_row(inputs: CombineInputs, share: float) -> Factors:
    from adaptry.compute.tensors.lowrank import Factors, concatenate, row_inner_products

    if len(inputs.updates) == 1:
        # The other update is zero, and so orthogonal to every row: the coefficient is the same for all rows.
        return _interpolate(inputs, share)
    one, other = inputs.updates
    coefficients = _arc(
        row_inner_products(one, one), row_inner_products(one, other), row_inner_products(other, other), share
    )
    scaled = [
        Factors((update.up * each.unsqueeze(-1)).to(update.up.dtype), update.down, update.scale)
        for update, each in zip(inputs.updates, coefficients, strict=True)
    ]
    return concatenate(scaled)


def _column_by_column(inputs: CombineInputs, share: float) -> Factors:
    from adaptry.compute.tensors.lowrank import transpose

    transposed = replace(inputs, updates=[transpose(update) for update in inputs.updates])
    return transpose(_row_by_row(transposed, share))


_ZERO = "A zero or missing update counts as orthogonal to the other."
METHODS = (
    CombineMethod(
        "slerp",
        "interpolates two updates along the arc between them",
        slerp,
        source="Shoemake, SIGGRAPH 1985",
        parameters={
            "t": MethodParameter(0.5, "position between the first input (0) and the second (1)", 0.0, 1.0)
        },
        inputs=(2, 2),
        uses_weights=False,
        differences=(
            "mergekit's `slerp` follows the arc between two complete models' weights, where the angle is"
            " nearly"
            " 0 and the path nearly straight; here it is the arc between the updates, as in mergekit's"
            " `nuslerp`"
            " with a base. The path is straight below an angle of 1e-4, in mergekit if |cos| > 0.9995."
            f" {_ZERO}"
        ),
    ),
    CombineMethod(
        "nuslerp",
        "interpolates two updates along the arc between them, according to their weights",
        nuslerp,
        source="mergekit's nuslerp",
        parameters={
            "over": MethodParameter(
                "tensor",
                "compute the angle of whole updates, of each row (the weights of one output) or of each"
                " column (the weights of one input)",
                choices=("tensor", "rows", "columns"),
            )
        },
        inputs=(2, 2),
        differences=(
            "Equal to mergekit's with a base: `over: rows` is its nuslerp_flatten: false, `over: columns`"
            " also nuslerp_row_wise: true. Rows are outputs here even if a model stores a weight transposed"
            " (embeddings, Conv1D). The path is straight below an angle of 1e-4,"
            f" in mergekit below 1e-8. {_ZERO}"
        ),
    ),
)
