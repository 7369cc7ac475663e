"""Compares a result with its parents: how much of each it contains, and where the parents agree.

Parents count without the weights of the recipe. A parent that is not a sum of factors is left out and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from adaptry.compute.comparison import aggregate
from adaptry.compute.comparison.measures import (
    SignConflict,
    Subspaces,
    length,
    measure_sign_conflict,
    subspace_overlaps,
    subspaces,
)
from adaptry.compute.comparison.results import CombineReport, ModuleReport
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.tensors.lowrank import inner_product
from adaptry.compute.tensors.tolerances import NEGLIGIBLE
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress


def build_combine_report(
    parents: Sequence[ParentAdapter],
    result: ParentAdapter,
    outcome: ComputeResult | None = None,
    progress: Progress = no_progress,
) -> CombineReport:
    """Compares `result` with its `parents`; `outcome` has the figures of its computation (kept energy).

    Only the factors of one site are in memory. Raises `Unsupported`, `CheckFailed` if the result is not a sum
    of factors.
    """
    made = open_adapter_deltas(result)
    held, notes = comparable(parents)
    kept = _kept_by_module(outcome)
    sites = sorted({*made.modules, *(site for each in held for site in each.modules)}, key=lambda s: s.key)
    size = sum(each.parent.adapter.spec.size for each in (made, *held))
    measured = []
    for done, site in enumerate(sites, 1):
        measured.append(_measured(site, made, held, kept.get(site.key)))
        progress("comparing", size * done // len(sites), size)
    return _aggregate(measured, held, outcome, notes)


@dataclass(frozen=True, slots=True)
class _SiteReport:
    """One site: its report, and its contribution to the figures over all sites."""

    report: ModuleReport
    products: Sequence[float]
    signs: SignConflict | None


def comparable(parents: Sequence[ParentAdapter]) -> tuple[list[AdapterDeltas], list[str]]:
    """The updates of the adapters that are sums of factors, and a note about each of the others."""
    held, notes = [], []
    for parent in parents:
        try:
            held.append(open_adapter_deltas(parent))
        except (Unsupported, CheckFailed) as error:
            notes.append(f"not compared: {error.message}")
    return held, notes


def _kept_by_module(outcome: ComputeResult | None) -> Mapping[str, float]:
    figures = {each.module: each.figures for each in outcome.modules} if outcome else {}
    return {
        module: 1.0 - found.get("lost", 0.0) / found["energy"]
        for module, found in figures.items()
        if found.get("energy")
    }


def _measured(
    site: WeightSite, made: AdapterDeltas, held: Sequence[AdapterDeltas], kept: float | None
) -> _SiteReport:
    result = made.factors(site) if site in made.modules else None
    updates = [each.factors(site) if site in each.modules else None for each in held]
    norm = length(result) if result else None
    norms = [length(update) if update else None for update in updates]
    products = [inner_product(result, update) if result and update else 0.0 for update in updates]
    several = there if len(there := [update for update in updates if update]) > 1 else []
    found = measure_sign_conflict(several) if several else None
    columns, rows = mean_overlaps([subspaces(update) for update in several])
    largest = max((each for each in norms if each), default=0.0)
    report = ModuleReport(
        module=site.key,
        norm=norm,
        norms=tuple(norms),
        ratios=tuple(aggregate.share(norm, each) for each in norms),
        cosines=tuple(map(aggregate.cosine, products, [norm] * len(norms), norms)),
        kept=kept,
        conflict=aggregate.conflict([found]),
        column_overlap=columns,
        row_overlap=rows,
        rows_seen=found.sampled_rows if found else None,
        rows=found.total_rows if found else None,
        does_nothing=norm is not None and norm <= NEGLIGIBLE * largest,
    )
    return _SiteReport(report, products, found)


def mean_overlaps(found: Sequence[Subspaces]) -> tuple[float | None, float | None]:
    """The overlaps of column and row spaces, as the mean over pairs."""
    pairs = [pair for one, other in combinations(found, 2) if (pair := subspace_overlaps(one, other))]
    return aggregate.mean(columns for columns, _ in pairs), aggregate.mean(rows for _, rows in pairs)


def _aggregate(
    measured: Sequence[_SiteReport],
    held: Sequence[AdapterDeltas],
    outcome: ComputeResult | None,
    notes: Sequence[str],
) -> CombineReport:
    reports = [each.report for each in measured]
    norm = aggregate.joint_norm(module.norm for module in reports)
    norms = [aggregate.joint_norm(module.norms[place] for module in reports) for place in range(len(held))]
    products = [sum(each.products[place] for each in measured) for place in range(len(held))]
    return CombineReport(
        parents=tuple(each.parent.label for each in held),
        norm=norm,
        norms=tuple(norms),
        ratios=tuple(aggregate.share(norm, each) for each in norms),
        cosines=tuple(map(aggregate.cosine, products, [norm] * len(norms), norms)),
        kept=outcome.kept if outcome else None,
        conflict=aggregate.conflict(each.signs for each in measured),
        column_overlap=aggregate.mean(module.column_overlap for module in reports),
        row_overlap=aggregate.mean(module.row_overlap for module in reports),
        doing_nothing=tuple(module.module for module in reports if module.does_nothing),
        modules=tuple(reports),
        notes=(*notes, *aggregate.sampling_notes(reports)),
    )
