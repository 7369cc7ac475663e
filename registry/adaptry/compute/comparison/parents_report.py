"""How the inputs of a combination agree, before it is made: sign conflicts and shared subspaces by module.

Inputs count without the weights of the recipe. A parent that is not a sum of factors is left out and named.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.compute.comparison import aggregate
from adaptry.compute.comparison.combine_report import comparable, mean_overlaps
from adaptry.compute.comparison.measures import SignConflict, length, measure_sign_conflict, subspaces
from adaptry.compute.comparison.results import ParentsModule, ParentsReport
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.progress import Progress, no_progress


def compare_parents(parents: Sequence[ParentAdapter], progress: Progress = no_progress) -> ParentsReport:
    """Compares `parents` with one another. Only the factors of one site are in memory."""
    held, notes = comparable(parents)
    sites = sorted({site for each in held for site in each.modules}, key=lambda site: site.key)
    size = sum(each.parent.adapter.spec.size for each in held)
    measured = []
    for done, site in enumerate(sites, 1):
        measured.append(_measured(site, held))
        progress("comparing", size * done // len(sites), size)
    modules = tuple(module for module, _ in measured)
    return ParentsReport(
        parents=tuple(each.parent.label for each in held),
        norms=tuple(
            aggregate.joint_norm(module.norms[place] for module in modules) for place in range(len(held))
        ),
        conflict=aggregate.conflict(signs for _, signs in measured),
        column_overlap=aggregate.mean(module.column_overlap for module in modules),
        row_overlap=aggregate.mean(module.row_overlap for module in modules),
        modules=modules,
        notes=tuple(notes),
    )


def _measured(site: WeightSite, held: Sequence[AdapterDeltas]) -> tuple[ParentsModule, SignConflict | None]:
    updates = [each.factors(site) if site in each.modules else None for each in held]
    there = [update for update in updates if update]
    signs = measure_sign_conflict(there) if len(there) > 1 else None
    columns, rows = mean_overlaps([subspaces(update) for update in there]) if signs else (None, None)
    module = ParentsModule(
        module=site.key,
        norms=tuple(length(update) if update else None for update in updates),
        conflict=aggregate.conflict([signs]),
        column_overlap=columns,
        row_overlap=rows,
    )
    return module, signs
