"""Compares two adapters: their metadata, and the distance of their updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.core.display import format_count, format_decimal, html_table, short_repr, table_text
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.differences import Difference, DiffSide, find_differences
from adaptry.operations.sources import ParentSource, RegistryOpener, Warn, open_input, open_parent

if TYPE_CHECKING:
    from adaptry.compute.comparison.results import AdapterDistance


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """The differences between two adapters.

    `before` and `after` are their labels. `differences` are in method, base, modules, ranks, config, metrics,
    state and weights, the most important first. `distance` is that of the updates; None if weights were not
    read.
    """

    before: str
    after: str
    differences: tuple[Difference, ...]
    distance: AdapterDistance | None = None

    def __repr__(self) -> str:
        apart = self.distance
        distance = [f"cosine {format_decimal(apart.cosine)}"] if apart and apart.cosine is not None else []
        head = short_repr(self, self._title(), *distance)
        rows = [(each.what, each.before, each.after) for each in self.differences]
        return f"{head}\n{table_text(rows)}" if rows else head

    def _repr_html_(self) -> str:
        rows = [(each.what, each.before, each.after) for each in self.differences]
        table = html_table(self._title(), ("what", self.before, self.after), rows)
        return table + (self.distance._repr_html_() if self.distance else "")

    def _title(self) -> str:
        return f"{self.before} and {self.after}: {format_count(len(self.differences), 'difference')}"


def compare_adapters(
    connected: RegistryOpener,
    before: ParentSource,
    after: ParentSource,
    *,
    weights: bool,
    warn: Warn,
    progress: Progress = no_progress,
) -> Comparison:
    """Compares headers, configs and metrics; with `weights`, the updates too, module by module.

    Raises `NotFound`, `Invalid…`; with `weights` as `measure_distance`.
    """
    one, other = open_input(connected, before), open_input(connected, after)
    found = find_differences(DiffSide.of(one.adapter, one.version), DiffSide.of(other.adapter, other.version))
    if not weights:
        return Comparison(one.label, other.label, found)
    from adaptry.compute.comparison.distance import measure_distance

    first, second = (
        open_parent(connected, source, warn=warn, progress=progress) for source in (before, after)
    )
    return Comparison(one.label, other.label, found, measure_distance(first, second, progress))
