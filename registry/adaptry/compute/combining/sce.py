"""SCE: selects the elements that vary most, weighs updates by their energy there, erases minority signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.options import LAMBDA

if TYPE_CHECKING:
    from torch import Tensor


def sce(inputs: CombineInputs) -> Tensor:
    """λ · Σ η_i δ_i / Σ η_i over agreeing i, with δ_i = w_i Δ_i where these vary most and η_i ∝ Σ δ_i² (Wan
    et al., arXiv 2408.07990). Dense, [..., out, in] float32.
    """
    from adaptry.compute.combining.dense_rows import rows_of
    from adaptry.compute.combining.selection import select_and_weigh

    updates = [rows.scaled_by(weight) for rows, weight in zip(rows_of(inputs), inputs.weights, strict=True)]
    merged = select_and_weigh(updates, inputs.number("select")).mul_(inputs.number("lambda"))
    return merged.reshape(*inputs.updates[0].up.shape[:-1], -1)


METHODS = (
    CombineMethod(
        "sce",
        "keeps the elements that vary most between updates, weighed by energy, without minority signs",
        sce,
        source="Wan et al., arXiv 2408.07990",
        parameters={
            "select": MethodParameter(
                0.1, "share of the varying elements that are kept, those that vary most", 0.0, 1.0
            ),
            "lambda": LAMBDA,
        },
        delta_form="dense",
        differences=(
            "The paper has no weights; here an update counts as w·Δ throughout. In a module that only one"
            " input"
            " has, nothing varies, so its update is unchanged. mergekit's `select_topk` is `select`, with the"
            " default 1. PEFT has no SCE."
        ),
    ),
)
