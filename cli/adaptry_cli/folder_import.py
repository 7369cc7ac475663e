"""Imports the training runs in a folder tree, for `adaptry import ./runs --to acme`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptry.operations.folder_import.bases import ImportedBase, list_bases
from adaptry.operations.folder_import.plan import plan_import
from adaptry.operations.folder_import.run import VersionImport, run_import
from adaptry.operations.folder_scan import FolderScan, scan_folder
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import base_source
from adaptry_cli.folder_inspection import error_text, json_of_unsearched, print_unsearched, relative_text
from adaptry_cli.output import format_count, print_err, print_json, print_out, progress
from adaptry_cli.tables import print_table


def import_from_folder(
    registry: Registry, folder: Path, namespace: str, base: str | None, dry_run: bool, as_json: bool
) -> int:
    """Imports the adapters, and prints each result. Returns how many failed."""
    scan = scan_folder(folder)
    plan = plan_import(scan, namespace)
    results: list[VersionImport] = []
    of_all = base_source(base) if base else None
    with progress() as bars:
        for result in run_import(registry, plan, base=of_all, is_dry_run=dry_run, progress=bars):
            results.append(result)
            if not (as_json or dry_run):
                _print_result(folder, result)
    bases = list_bases(registry.bases, results, namespace)
    failed = [result for result in results if result.error is not None]
    if as_json:
        print_json(_json_of_import(scan, results, bases))
    elif dry_run:
        _print_plan(folder, results)
    for result in failed:
        assert result.error is not None
        print_err(f"failed: {error_text(result.planned.adapter.path, result.error)}")
    print_unsearched(scan.unsearched)
    for one in bases:
        _print_base(one)
    print_err(_summary(results, dry_run))
    return len(failed)


def _print_result(root: Path, result: VersionImport) -> None:
    path = relative_text(root, result.planned.adapter.path)
    if result.planned.same_as is not None:
        print_err(f"{path} is the same as {relative_text(root, result.planned.same_as)}")
    elif result.version is not None and not result.is_new:
        print_err(f"{path} is already {result.version.label}")
    elif result.version is not None:
        print_out(f"{result.version.label} {result.version.digest} {path}")
    for note in result.notes:
        print_err(f"{path}: {note}")


def _print_plan(root: Path, results: Sequence[VersionImport]) -> None:
    rows = [
        (
            relative_text(root, result.planned.adapter.path),
            str(result.planned.name),
            "" if result.planned.adapter.step is None else str(result.planned.adapter.step),
            result.planned.adapter.base_name or "",
            _plan_text(root, result),
        )
        for result in results
    ]
    columns = ("adapter", "becomes a version of", "step", "base", "notes")
    print_table(columns, rows, right=("step",), cut=("adapter", "base", "notes"), drop=("base",))


def _plan_text(root: Path, result: VersionImport) -> str:
    if result.error is not None:
        return "cannot be imported"
    if result.planned.same_as is not None:
        return f"same as {relative_text(root, result.planned.same_as)}"
    return f"already {result.version.label}" if result.version is not None else ""


def _print_base(base: ImportedBase) -> None:
    adapters = format_count(base.adapters, "adapter")
    if not base.name:
        print_err(f"engines do not load {adapters}, because no base is named; name it: {base.remedy}")
    elif base.is_registered:
        print_err(f"base of {adapters}: {base.name} (registered)")
    else:
        print_err(
            f"base of {adapters}: {base.name} (not registered, so engines do not load its adapters;"
            f" register it: {base.remedy})"
        )


def _summary(results: Sequence[VersionImport], dry_run: bool) -> str:
    same = sum(result.planned.same_as is not None for result in results)
    failed = sum(result.error is not None for result in results)
    present = sum(result.version is not None and not result.is_new for result in results)
    new = len(results) - same - failed - present
    names = len({result.planned.name for result in results if result.error is None})
    what = f"{format_count(new, 'version')} {'to import' if dry_run else 'imported'}"
    return (
        f"{what}, {present:,} already there, {same:,} the same as another, {failed:,} failed;"
        f" {format_count(names, 'adapter')}"
    )


def _json_of_import(
    scan: FolderScan, results: Sequence[VersionImport], bases: Sequence[ImportedBase]
) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    return {
        "folder": str(scan.root),
        "versions": [_json_of_result(scan.root, result) for result in results],
        "bases": [
            {"name": one.name or None, "adapters": one.adapters, "remedy": one.remedy or None}
            for one in bases
        ],
        "not_searched": json_of_unsearched(scan.root, scan.unsearched),
    }


def _json_of_result(root: Path, result: VersionImport) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    planned, version, error = result.planned, result.version, result.error
    return {
        "path": relative_text(root, planned.adapter.path),
        "name": str(planned.name),
        "step": planned.adapter.step,
        "number": version.number if version else None,
        "digest": str(version.digest) if version else None,
        "is_new": result.is_new,
        "same_as": relative_text(root, planned.same_as) if planned.same_as else None,
        "error": {"code": error.code, "message": error.message} if error else None,
        "notes": list(result.notes),
    }
