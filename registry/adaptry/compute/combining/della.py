"""DELLA: drops random elements, small ones with a higher probability; then TIES' election, or a sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.options import ELECTION, KEEP_PROBABILITY, RESCALE, SUM
from adaptry.core.errors import Invalid

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.combining.dense_rows import PruneFunction


def magprune_prunes(inputs: CombineInputs) -> list[PruneFunction]:
    """For each update, the paper's MAGPRUNE by `density`, `epsilon` and `rescale`.

    Raises `Invalid` if density ± ε/2 is not a probability.
    """
    density, half = inputs.number("density"), inputs.number("epsilon") / 2
    if density < 1 and not 0 < density - half <= density + half < 1:
        raise Invalid(
            "della keeps elements with probabilities from density − ε/2 to density + ε/2, here"
            f" {density - half:g} to {density + half:g}: choose both so that these lie between 0 and 1"
        )
    return [_magprune(inputs, place) for place in range(len(inputs.updates))]


def _magprune(inputs: CombineInputs, place: int) -> PruneFunction:
    from adaptry.compute.combining.dense_rows import DenseRows
    from adaptry.compute.combining.sparsity import drop_by_magnitude_rank, rescale_l1

    rescale = inputs.word("rescale")

    def made() -> PruneFunction:
        epsilon = inputs.number("epsilon")
        return drop_by_magnitude_rank(
            inputs.random(place), inputs.number("density"), epsilon, rescale == "probability"
        )

    return rescale_l1(DenseRows.from_factors(inputs.updates[place]), made) if rescale == "l1" else made()


def della(inputs: CombineInputs) -> Tensor:
    """λ · mean of w_i magprune(Δ_i) over the agreeing i, [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_election

    return combine_rows(inputs, magprune_prunes(inputs), fuse_by_election(inputs))


def della_linear(inputs: CombineInputs) -> Tensor:
    """λ Σ w_i magprune(Δ_i), [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_sum

    return combine_rows(inputs, magprune_prunes(inputs), fuse_by_sum(inputs))


_EPSILON = MethodParameter(
    0.2, "difference between the probabilities of a row's largest and smallest element", 0.0, 1.0
)
_PAPER = "Deep et al., arXiv 2406.11617"
_DIFFERS = (
    "ε is the full width, as in the paper; mergekit's epsilon is half of it (epsilon: 0.3 is its 0.15), and"
    " mergekit scales to preserve Σ|δ| (rescale: l1). PEFT has no DELLA."
)
METHODS = (
    CombineMethod(
        "della",
        "drops random elements, small ones more often; then takes the mean of those with the elected sign",
        della,
        source=_PAPER,
        parameters={"density": KEEP_PROBABILITY, "epsilon": _EPSILON, "rescale": RESCALE, **ELECTION},
        delta_form="dense",
        differences=f"{_DIFFERS} mergekit divides by the sum of the agreeing weights (divide: weights).",
    ),
    CombineMethod(
        "della_linear",
        "drops random elements, small ones more often; then sums the rest",
        della_linear,
        source=_PAPER,
        parameters={"density": KEEP_PROBABILITY, "epsilon": _EPSILON, "rescale": RESCALE, **SUM},
        delta_form="dense",
        differences=_DIFFERS,
    ),
)
