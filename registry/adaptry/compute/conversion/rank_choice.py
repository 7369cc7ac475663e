"""Chooses a rank for an adapter: how much each rank would keep, and the smallest allowed rank that keeps
enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.compute.conversion.rank_energy import (
    RankPoint,
    compute_spectra,
    rank_curve,
    rank_point,
    smallest_allowed_rank,
)
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.display import format_share, html_table, short_repr, table_text
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class RankPlan:
    """For each rank, the share of the energy ‖Δ‖² of the adapter `label` that it keeps over all modules, and
    the module that keeps the smallest share.
    """

    label: str
    points: tuple[RankPoint, ...]

    def __repr__(self) -> str:
        rows = [
            (f"rank {rank}", f"energy kept {kept}", f"worst module {worst}")
            for rank, kept, worst, _ in self._rows()
        ]
        return f"{short_repr(self, self.label)}\n{table_text(rows, maximum=20)}"

    def _repr_html_(self) -> str:
        return html_table(
            f"{self.label}: what each rank keeps",
            ("rank", "energy kept", "worst module keeps", "worst module"),
            self._rows(),
        )

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (str(each.rank), format_share(each.kept), format_share(each.worst_kept), each.worst)
            for each in self.points
        ]


def plan_ranks(parent: ParentAdapter, more: Sequence[int] = ()) -> RankPlan:
    """The energy that the ranks 1, 2, 4, …, the largest rank and the ranks `more` keep. Reads all factors,
    one module at a time.

    Raises `Unsupported`, `CheckFailed` unless the adapter is exactly a sum of factors.
    """
    found = compute_spectra(open_adapter_deltas(parent))
    points = {each.rank: each for each in (*rank_curve(found), *(rank_point(found, each) for each in more))}
    return RankPlan(parent.label, tuple(points[each] for each in sorted(points)))


def choose_rank(parent: ParentAdapter, allowed: Sequence[int], energy: float | None = None) -> RankPoint:
    """The smallest allowed rank that keeps the share `energy` (None: all); if none does, the largest allowed.

    Raises the errors of `plan_ranks`.
    """
    found = compute_spectra(open_adapter_deltas(parent))
    return smallest_allowed_rank(found, allowed, 1.0 if energy is None else energy)
