"""Parameters that several elementwise methods share."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.compute.combining.method import MethodParameter

LAMBDA = MethodParameter(1.0, "multiplies the result", -100.0, 100.0)
DENSITY = MethodParameter(0.5, "share of the elements that are kept", 0.0, 1.0)
KEEP_PROBABILITY = MethodParameter(0.5, "probability with which an element is kept", 1e-3, 1.0)
NORMALIZE = MethodParameter(False, "divide the sum by the sum of the weights")
SIGN = MethodParameter(
    "weighted",
    "elect the sign by the sum of the weighted updates, of the unweighted updates,"
    " or of the weighted updates' signs",
    choices=("weighted", "unweighted", "frequency"),
)
DIVIDE = MethodParameter(
    "count",
    "divide the sum of the agreeing elements by their number, by the sum of their weights, or not at all",
    choices=("count", "weights", "none"),
)
RESCALE = MethodParameter(
    "probability",
    "compensate for dropped elements: divide the kept ones by their probability,"
    " or scale them to preserve Σ|δ|, or not at all",
    choices=("probability", "l1", "none"),
)

SUM: Mapping[str, MethodParameter] = {"normalize": NORMALIZE, "lambda": LAMBDA}
ELECTION: Mapping[str, MethodParameter] = {"sign": SIGN, "divide": DIVIDE, "lambda": LAMBDA}


def rescale_parameter(default: str) -> MethodParameter:
    """The parameter `l1` or `none`, for methods that drop by magnitude and have no probability."""
    return MethodParameter(
        default, "scale the kept elements to preserve Σ|δ|, or not", choices=("l1", "none")
    )
