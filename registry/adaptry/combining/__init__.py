"""Several adapters of one base made into one: recipe, plan, and the table of ways to combine."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.combining import breadcrumbs, dare, della, linear, pruning, sce, ties
from adaptry.combining.method import Combination

COMBINATIONS: Mapping[str, Combination] = {
    combination.name: combination
    for combination in (
        *linear.METHODS,
        *ties.METHODS,
        *dare.METHODS,
        *pruning.METHODS,
        *della.METHODS,
        *breadcrumbs.METHODS,
        *sce.METHODS,
    )
}
"""Every way to combine, by the name that recipes use."""
