"""Compares a result with its parents: `--report` as JSON, `--heatmap` as an image."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid, MissingDependency
from adaptry.core.lazy_dataclass import dataclass
from adaptry_cli.arguments import FOLDER, require_usage
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import (
    OutputTarget,
    open_named_parent,
    print_result,
    result_json,
    write_result,
)
from adaptry_cli.output import progress
from adaptry_cli.similarity_output import print_report

if TYPE_CHECKING:
    from adaptry.compute.comparison.results import CombineReport
    from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter
    from adaptry.operations.derived_output import DerivedResult


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """The files for a report (JSON) and its image; None if not requested."""

    file: Path | None
    picture: Path | None

    @property
    def is_any(self) -> bool:
        return self.file is not None or self.picture is not None


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--report` and `--heatmap`; passes `report`. (`Any`: other arguments are each command's own.)"""

    @click.option(
        "--report",
        type=FOLDER,
        metavar="FILE",
        help="Write a comparison of the result with its inputs, module by module, to FILE as JSON.",
    )
    @click.option(
        "--heatmap",
        type=FOLDER,
        metavar="FILE",
        help="Draw the same comparison as a PNG, with a row for each layer.",
    )
    @functools.wraps(command)
    def reporting(*args: Any, report: Path | None, heatmap: Path | None, **options: Any) -> Any:
        return command(*args, report=_checked(ReportTarget(report, heatmap)), **options)

    return reporting


def write_and_report(
    lazy_adapter: LazyAdapter,
    target: OutputTarget,
    connected: RegistryOpener,
    to: ReportTarget,
    as_json: bool,
) -> None:
    """Computes the adapter, writes it, compares it with its parents if requested, and prints the result."""
    there = write_result(lazy_adapter, target, connected)
    if to.is_any:
        _compare(lazy_adapter, there, connected, to)
    print_result(lazy_adapter, there, as_json)


def _compare(
    lazy_adapter: LazyAdapter, there: DerivedResult, connected: RegistryOpener, to: ReportTarget
) -> None:
    from adaptry.adapters.adapter import open_dir
    from adaptry.compute.comparison.combine_report import build_combine_report
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

    with progress() as bars:
        if there.folder:
            result = ParentAdapter(open_dir(there.folder), there.location)
        else:
            result = open_named_parent(connected, there.location, bars)
        compared = build_combine_report(lazy_adapter.parents, result, there.outcome, bars)
    if to.file:
        _write(to.file, {**result_json(lazy_adapter, there), "report": compared.model_dump(mode="json")})
    if to.picture:
        _draw(compared, to.picture)
    print_report(compared)


def _write(path: Path, found: dict[str, Any]) -> None:
    """(`Any`: JSON.)"""
    try:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise Invalid(f"cannot write the report {path}: {error.strerror}") from error


def _draw(compared: CombineReport, path: Path) -> None:
    from adaptry.compute.comparison.heatmap import draw_heatmap

    draw_heatmap(compared, path)


def _checked(to: ReportTarget) -> ReportTarget:
    """Checks the report's files before the work, so that it does not fail afterwards."""
    for path in (to.file, to.picture):
        require_usage(
            path is None or (path.parent.is_dir() and not path.is_dir()),
            f"cannot write {path}: its folder does not exist, or it is a folder",
        )
    if to.picture and find_spec("matplotlib") is None:
        raise MissingDependency("--heatmap needs matplotlib: pip install 'adaptry[plots]'")
    return to
