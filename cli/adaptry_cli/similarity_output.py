"""Prints figures about updates: the distance of two adapters, a result compared with its parents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.core.display import format_decimal
from adaptry_cli.output import format_count, print_err
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.compute.comparison.results import AdapterDistance, CombineReport, ModuleDistance

_OVER_ALL = "all modules"


def print_distance(distance: AdapterDistance, top: int) -> None:
    """Prints the distance over all modules, then the modules that differ most."""
    over_all = (distance.distance, distance.cosine, distance.ratio)
    shared = (distance.conflict, distance.column_overlap, distance.row_overlap)
    rows = [(_OVER_ALL, *map(_text, over_all), "", *map(_text, shared))]
    rows += [_distance_row(module) for module in distance.modules[:top]]
    columns = ("module", "distance", "cosine", "norm ratio", "ranks", *_SHARED)
    print_table(
        columns,
        rows,
        right=columns[1:],
        cut=("module",),
        drop=("row overlap", "column overlap", "ranks", "norm ratio"),
    )
    _print_omission(len(distance.modules), top)
    for note in distance.notes:
        print_err(f"note: {note}")


def print_report(report: CombineReport) -> None:
    """Prints a comparison of the result with each parent, and of the parents, on stderr."""
    for label, ratio, cosine in zip(report.parents, report.ratios, report.cosines, strict=True):
        print_err(
            f"compared with {label}: cosine {_text(cosine) or 'none'}, norm ratio {_text(ratio) or 'none'}"
        )
    shared = zip(_SHARED, (report.conflict, report.column_overlap, report.row_overlap), strict=True)
    if known := ", ".join(f"{name} {_text(value)}" for name, value in shared if value is not None):
        print_err(f"between the parents: {known}")
    if report.doing_nothing:
        print_err(
            f"{format_count(len(report.doing_nothing), 'module')} do nothing (first:"
            f" {report.doing_nothing[0]})"
        )
    for note in report.notes:
        print_err(f"note: {note}")


_SHARED = ("sign conflict", "column overlap", "row overlap")


def _distance_row(module: ModuleDistance) -> tuple[str, ...]:
    ranks = "{} → {}".format(*(rank or "none" for rank in module.ranks))
    over_all = (module.distance, module.cosine, module.ratio)
    shared = (module.conflict, module.column_overlap, module.row_overlap)
    return (module.module, *map(_text, over_all), ranks, *map(_text, shared))


def _text(value: float | None) -> str:
    """The number with four decimals; empty if there is no value."""
    return "" if value is None else format_decimal(value)


def _print_omission(modules: int, top: int) -> None:
    if modules > top:
        print_err(f"showing {top} of {modules} modules; --top shows more")
