"""Figures about updates as people read them: two adapters apart, a result and its parents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from adaptry_cli.out import number, tell
from adaptry_cli.tables import say_facts, say_table

if TYPE_CHECKING:
    from adaptry.comparing.figures import CombineReport, Distance, ModuleDistance, ModuleReport

_OVER_ALL = "all modules"


def say_distance(found: Distance, top: int) -> None:
    """Over all modules, then the farthest ones."""
    over_all = (found.distance, found.cosine, found.ratio)
    shared = (found.conflict, found.column_overlap, found.row_overlap)
    rows = [(_OVER_ALL, *map(_text, over_all), "", *map(_text, shared))]
    rows += [_distance_row(module) for module in found.modules[:top]]
    columns = ("module", "distance", "cosine", "norm ratio", "ranks", *_SHARED)
    say_table(columns, rows, right=columns[1:])
    _tell_left_out(len(found.modules), top)
    for note in found.notes:
        tell(f"note: {note}")


def say_report(report: CombineReport, top: int) -> None:
    """Over all modules, each parent against the result; then the modules on which the parents conflict most."""
    parents = zip(report.parents, report.norms, report.ratios, report.cosines, strict=True)
    say_table(
        ("parent", "norm", "result/parent", "cosine"),
        [(label, *map(_text, figures)) for label, *figures in parents],
        right=("norm", "result/parent", "cosine"),
    )
    say_facts((name, _text(value)) for name, value in _facts(report) if value is not None)
    worst = sorted(report.modules, key=lambda module: -(module.conflict or 0.0))[:top]
    columns = ("module", "norm", "kept", *_SHARED)
    say_table(columns, map(_report_row, worst), right=columns[1:])
    _tell_left_out(len(report.modules), top)
    if report.doing_nothing:
        tell(f"{len(report.doing_nothing)} modules do nothing (first: {report.doing_nothing[0]})")
    for note in report.notes:
        tell(f"note: {note}")


_SHARED = ("sign conflict", "column overlap", "row overlap")


def _facts(report: CombineReport) -> Iterable[tuple[str, float | None]]:
    yield "norm of the result", report.norm
    yield "kept energy", report.kept
    yield from zip(_SHARED, (report.conflict, report.column_overlap, report.row_overlap), strict=True)


def _distance_row(module: ModuleDistance) -> tuple[str, ...]:
    ranks = "{} → {}".format(*(rank or "none" for rank in module.ranks))
    over_all = (module.distance, module.cosine, module.ratio)
    shared = (module.conflict, module.column_overlap, module.row_overlap)
    return (module.module, *map(_text, over_all), ranks, *map(_text, shared))


def _report_row(module: ModuleReport) -> tuple[str, ...]:
    figures = (module.norm, module.kept, module.conflict, module.column_overlap, module.row_overlap)
    return (module.module, *map(_text, figures))


def _text(value: float | None) -> str:
    """Four digits are more than these figures mean; empty where there is none."""
    return "" if value is None else number(float(f"{value:.4g}"))


def _tell_left_out(modules: int, top: int) -> None:
    if modules > top:
        tell(f"{top} of {modules} modules are shown (--top)")
