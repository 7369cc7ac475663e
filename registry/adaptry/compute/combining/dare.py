"""DARE: elements dropped by chance, the rest scaled up to make up for them; then the sum, or TIES' election."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import Combination, Given
from adaptry.compute.combining.options import CHANCE, ELECTION, RESCALE, SUM

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from adaptry.compute.combining.dense_rows import Prune


def drops(given: Given) -> list[Prune]:
    """For each update, its random pruning by `density` and `rescale`."""
    return [_drop(given, place) for place in range(len(given.updates))]


def _drop(given: Given, place: int) -> Prune:
    from adaptry.compute.combining.dense_rows import Rows
    from adaptry.compute.combining.sparsity import by_chance, rescaled

    density, rescale = given.number("density"), given.word("rescale")
    if rescale == "l1" and density < 1:
        return rescaled(Rows.of(given.updates[place]), lambda: by_chance(given.random(place), density))
    generator: Generator = given.random(place)
    prune = by_chance(generator, density)
    if rescale == "none" or density >= 1:
        return prune
    return lambda block: prune(block).div_(density)


def dare_linear(given: Given) -> Tensor:
    """λ Σ w_i drop(Δ_i)."""
    from adaptry.compute.combining.dense_rows import fused
    from adaptry.compute.combining.sign_election import summed

    return fused(given, drops(given), summed(given))


def dare_ties(given: Given) -> Tensor:
    """λ · mean over the i that agree of w_i drop(Δ_i)."""
    from adaptry.compute.combining.dense_rows import fused
    from adaptry.compute.combining.sign_election import elected

    return fused(given, drops(given), elected(given))


_PAPER = "Yu et al., arXiv 2311.03099"
_DRAWS = (
    "PEFT and mergekit draw from the global generator, so a result depends on all that ran before; here on the recipe's "
    "seed alone. PEFT's non-svd types drop elements of lora_A and lora_B (`peft:dare_linear`, `peft:dare_ties`). "
    "mergekit scales so that Σ|δ| stays (rescale: l1), the paper and PEFT by 1/density."
)
METHODS = (
    Combination(
        "dare_linear",
        "elements dropped by chance, the rest scaled up and summed",
        dare_linear,
        source=_PAPER,
        parameters={"density": CHANCE, "rescale": RESCALE, **SUM},
        work="dense",
        differs=_DRAWS,
    ),
    Combination(
        "dare_ties",
        "elements dropped by chance, then the mean of those that have the elected sign",
        dare_ties,
        source=f"{_PAPER}; Yadav et al., arXiv 2306.01708",
        parameters={"density": CHANCE, "rescale": RESCALE, **ELECTION},
        work="dense",
        differs=f"{_DRAWS} mergekit does not divide (divide: none); PEFT elects by the unweighted updates (sign: "
        "unweighted).",
    ),
)
