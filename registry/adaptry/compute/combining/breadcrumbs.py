"""Model Breadcrumbs: drops each update's largest and smallest elements, then computes a sum, or TIES'
election.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.compute.combining.method import CombineInputs, CombineMethod, MethodParameter
from adaptry.compute.combining.options import DENSITY, ELECTION, SUM, rescale_parameter

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.combining.dense_rows import PruneFunction


def band_prunes(inputs: CombineInputs) -> list[PruneFunction]:
    """For each update, the pruning to a band of magnitudes by `density`, `gamma` and `rescale`."""
    from adaptry.compute.combining.dense_rows import DenseRows
    from adaptry.compute.combining.sparsity import keep_band, rescale_l1_exactly

    found = []
    for update in inputs.updates:
        rows = DenseRows.from_factors(update)
        prune = keep_band(rows, inputs.number("density"), inputs.number("gamma"))
        found.append(rescale_l1_exactly(rows, prune) if inputs.word("rescale") == "l1" else prune)
    return found


def breadcrumbs(inputs: CombineInputs) -> Tensor:
    """λ Σ w_i band(Δ_i), [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_sum

    return combine_rows(inputs, band_prunes(inputs), fuse_by_sum(inputs))


def breadcrumbs_ties(inputs: CombineInputs) -> Tensor:
    """λ · mean of w_i band(Δ_i) over the agreeing i, [..., out, in] in float32."""
    from adaptry.compute.combining.dense_rows import combine_rows
    from adaptry.compute.combining.sign_election import fuse_by_election

    return combine_rows(inputs, band_prunes(inputs), fuse_by_election(inputs))


_GAMMA = MethodParameter(0.01, "share of the elements, the largest ones, that is dropped", 0.0, 1.0)
_PAPER = "Davari and Belilovsky, arXiv 2312.06795"
_DIFFERS = (
    "density and gamma are mergekit's: if their sum exceeds 1, density has priority. In the paper's terms, β"
    " and γ are the shares dropped below and above, so density is 1 − β − γ. PEFT has no breadcrumbs."
)
METHODS = (
    CombineMethod(
        "breadcrumbs",
        "updates without their outliers and their smallest elements, summed",
        breadcrumbs,
        source=_PAPER,
        parameters={"density": DENSITY, "gamma": _GAMMA, "rescale": rescale_parameter("none"), **SUM},
        delta_form="dense",
        differences=_DIFFERS,
    ),
    CombineMethod(
        "breadcrumbs_ties",
        "updates without their outliers and their smallest elements;"
        " the mean of those that have the elected sign",
        breadcrumbs_ties,
        source=f"{_PAPER}; Yadav et al., arXiv 2306.01708",
        parameters={"density": DENSITY, "gamma": _GAMMA, "rescale": rescale_parameter("none"), **ELECTION},
        delta_form="dense",
        differences=f"{_DIFFERS} mergekit does not divide (divide: none).",
    ),
)
