"""Aggregates figures of modules to figures of an adapter, with rules for missing parts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from adaptry.compute.comparison.measures import SignConflict
from adaptry.compute.comparison.results import ModuleDistance, ModuleReport


def joint_norm(norms: Iterable[float | None]) -> float:
    """The norm of all modules as one vector."""
    return math.sqrt(sum(norm * norm for norm in norms if norm is not None))


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None if all are."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def share(part: float | None, whole: float | None) -> float | None:
    """part / whole; None if `whole` is 0, or if either number is missing."""
    return part / whole if part is not None and whole else None


def cosine(product: float, one: float | None, other: float | None) -> float | None:
    """The cosine between vectors with these norms and inner product; None if a norm is 0."""
    return max(-1.0, min(1.0, product / (one * other))) if one and other else None


def conflict(found: Iterable[SignConflict | None]) -> float | None:
    """The conflicting share over several sites; a site with sampled rows is extrapolated to all its rows."""
    there = [(each, each.total_rows / each.sampled_rows) for each in found if each]
    mass = sum(each.mass * stands_for for each, stands_for in there)
    return share(sum(each.conflicting * stands_for for each, stands_for in there), mass)


def sampling_notes(modules: Iterable[ModuleReport | ModuleDistance]) -> tuple[str, ...]:
    """Notes that some figures are estimates."""
    some = [module for module in modules if module.rows_seen != module.rows]
    if not some:
        return ()
    first = some[0]
    return (
        f"sign conflicts in {len(some)} of the modules are estimates, from evenly spaced rows "
        f"({first.rows_seen:,} of {first.rows:,} in {first.module})",
    )
