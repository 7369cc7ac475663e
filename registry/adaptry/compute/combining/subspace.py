"""Applies an elementwise method in coordinates other than the model's.

Methods that first align the updates (KnOTS, Core Space) pass the small, aligned matrices to an inner method,
which treats them like any updates, with its own parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.compute.combining import dare, linear, ties
from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.options import DIVIDE, KEEP_PROBABILITY, SIGN

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_INNER: Mapping[str, CombineMethod] = {
    each.name: each for each in (linear.LINEAR, *ties.METHODS, *dare.METHODS)
}


def inner_parameters(default: str) -> Mapping[str, MethodParameter]:
    """The parameters of a method with an inner method: its name, and the inner method's parameters."""
    return {
        "merge": MethodParameter(default, "how the aligned updates are combined", choices=tuple(_INNER)),
        "density": replace(
            KEEP_PROBABILITY,
            description="share of the elements that are kept, or the probability (all but linear)",
        ),
        "sign": replace(SIGN, description=f"{SIGN.description} (ties, dare_ties)"),
        "divide": replace(DIVIDE, description=f"{DIVIDE.description} (ties, dare_ties)"),
    }


def combine_in_subspace(inputs: CombineInputs, aligned: Sequence[Factors]) -> Tensor:
    """Combines the aligned updates [..., k, l], one for each of `inputs.updates`, by `merge`; in float32."""
    from adaptry.compute.tensors.lowrank import Factors

    inner = _INNER[inputs.word("merge")]
    values = inner.check_values(
        {name: inputs.values[name] for name in inner.parameters if name in inputs.values}
    )
    made = inner.combine(replace(inputs, updates=aligned, values=values))
    return made.dense() if isinstance(made, Factors) else made
