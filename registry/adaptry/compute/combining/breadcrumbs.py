"""Model Breadcrumbs: neither an update's largest elements nor its smallest; then the sum, or TIES' election."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import Combination, Given, Parameter
from adaptry.compute.combining.options import DENSITY, ELECTION, SUM, rescaling

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.combining.dense_rows import Prune


def crumbs(given: Given) -> list[Prune]:
    """For each update, the pruning to a band of magnitudes by `density`, `gamma` and `rescale`."""
    from adaptry.compute.combining.dense_rows import Rows
    from adaptry.compute.combining.sparsity import band, same_norm

    found = []
    for update in given.updates:
        rows = Rows.of(update)
        prune = band(rows, given.number("density"), given.number("gamma"))
        found.append(same_norm(rows, prune) if given.word("rescale") == "l1" else prune)
    return found


def breadcrumbs(given: Given) -> Tensor:
    """λ Σ w_i band(Δ_i)."""
    from adaptry.compute.combining.dense_rows import fused
    from adaptry.compute.combining.sign_election import summed

    return fused(given, crumbs(given), summed(given))


def breadcrumbs_ties(given: Given) -> Tensor:
    """λ · mean over the i that agree of w_i band(Δ_i)."""
    from adaptry.compute.combining.dense_rows import fused
    from adaptry.compute.combining.sign_election import elected

    return fused(given, crumbs(given), elected(given))


_GAMMA = Parameter(0.01, "share of the elements, the largest ones, that goes", 0.0, 1.0)
_PAPER = "Davari and Belilovsky, arXiv 2312.06795"
_DIFFERS = (
    "density and gamma are mergekit's: where both together exceed 1, density wins. The paper speaks of the shares β and γ "
    "that go below and above: density is 1 − β − γ. PEFT has no breadcrumbs."
)
METHODS = (
    Combination(
        "breadcrumbs",
        "updates without their outliers and their smallest elements, summed",
        breadcrumbs,
        source=_PAPER,
        parameters={"density": DENSITY, "gamma": _GAMMA, "rescale": rescaling("none"), **SUM},
        work="dense",
        differs=_DIFFERS,
    ),
    Combination(
        "breadcrumbs_ties",
        "updates without their outliers and their smallest elements; the mean of those that have the elected sign",
        breadcrumbs_ties,
        source=f"{_PAPER}; Yadav et al., arXiv 2306.01708",
        parameters={"density": DENSITY, "gamma": _GAMMA, "rescale": rescaling("none"), **ELECTION},
        work="dense",
        differs=f"{_DIFFERS} mergekit does not divide (divide: none).",
    ),
)
