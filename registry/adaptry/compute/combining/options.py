"""Parameters that several elementwise methods share."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.compute.combining.method import MethodParameter

LAMBDA = MethodParameter(1.0, "multiplies the result", -100.0, 100.0)
DENSITY = MethodParameter(0.5, "share of the elements that stay", 0.0, 1.0)
CHANCE = MethodParameter(0.5, "probability with which an element stays", 1e-3, 1.0)
NORMALIZE = MethodParameter(False, "divide the sum by the sum of the weights")
SIGN = MethodParameter(
    "weighted",
    "what elects the sign: the sum of the weighted updates, of the updates,"
    " or of the weighted updates' signs",
    choices=("weighted", "unweighted", "frequency"),
)
DIVIDE = MethodParameter(
    "count",
    "what the sum of the agreeing elements is divided by: how many agree,"
    " the sum of their weights, or nothing",
    choices=("count", "weights", "none"),
)
RESCALE = MethodParameter(
    "probability",
    "what makes up for dropped elements: the kept ones over their probability,"
    " or scaled so that Σ|δ| stays, or nothing",
    choices=("probability", "l1", "none"),
)

SUM: Mapping[str, MethodParameter] = {"normalize": NORMALIZE, "lambda": LAMBDA}
ELECTION: Mapping[str, MethodParameter] = {"sign": SIGN, "divide": DIVIDE, "lambda": LAMBDA}


def rescale_parameter(default: str) -> MethodParameter:
    """`l1` or `none`, for methods that drop by magnitude and so have no probability."""
    return MethodParameter(default, "scale what stays so that Σ|δ| stays, or not", choices=("l1", "none"))
