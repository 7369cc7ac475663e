"""The adapters in a folder tree as a table, for `adaptry inspect ./runs`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adaptry.adapters.folder_tree import UnsearchedFolder
from adaptry.adapters.formats import FORMATS
from adaptry.core.errors import AdaptryError
from adaptry.core.refs import folder_argument
from adaptry.operations.folder_scan import GGUF, FolderScan, ScannedAdapter, scan_folder
from adaptry_cli.capabilities import method_title
from adaptry_cli.output import format_count, format_size, print_err, print_json
from adaptry_cli.tables import print_table

_COLUMNS = ("adapter", "format", "method", "rank", "targets", "parameters", "size", "base", "notes")
_MAX_LISTED = 10


def inspect_tree(root: Path, as_json: bool) -> int | None:
    """Prints a row for each adapter below `root`; returns how many cannot be read, or None if no folder below
    it has an adapter.
    """
    scan = scan_tree(root)
    if scan is None:
        return None
    if as_json:
        print_json(json_of_scan(scan))
    else:
        print_table(
            _COLUMNS,
            [_row(root, adapter) for adapter in scan.adapters],
            right=("rank", "parameters", "size"),
            cut=("adapter", "targets", "base", "notes"),
            drop=("parameters", "format", "size", "targets"),
        )
    unread = print_problems(scan)
    print_err(_summary(scan))
    return unread


def scan_tree(root: Path) -> FolderScan | None:
    """The adapters below `root`; None if no folder below it has one."""
    scan = scan_folder(root)
    return None if all(adapter.path == root for adapter in scan.adapters) else scan


def print_problems(scan: FolderScan) -> int:
    """Names the adapters that cannot be read, and the folders that were not searched; returns how many
    adapters cannot be read.
    """
    for adapter in scan.adapters:
        if adapter.error is not None:
            print_err(f"error: {error_text(adapter.path, adapter.error)}")
    print_unsearched(scan.unsearched)
    return sum(adapter.error is not None for adapter in scan.adapters)


def error_text(path: Path, error: AdaptryError) -> str:
    """The error's message, which names the path."""
    return error.message if str(path) in error.message else f"{path}: {error.message}"


def print_unsearched(folders: Sequence[UnsearchedFolder]) -> None:
    """Names the folders of a tree that were not searched; of many, the first ones."""
    for folder in folders[:_MAX_LISTED]:
        print_err(f"not searched: {folder.path} ({folder.reason})")
    if len(folders) > _MAX_LISTED:
        print_err(f"not searched: {len(folders) - _MAX_LISTED:,} more; --json lists them")


def relative_text(root: Path, path: Path) -> str:
    """The path below the searched folder, `.` for that folder."""
    return path.relative_to(root).as_posix()


def _row(root: Path, adapter: ScannedAdapter) -> tuple[str, ...]:
    name = relative_text(root, adapter.path)
    if adapter.error is not None:
        return (name, *[""] * (len(_COLUMNS) - 2), "cannot be read")
    return (
        name,
        "" if adapter.format == "peft" else _tool(adapter.format),
        method_title(adapter.method),
        ", ".join(map(str, adapter.ranks)),
        _targets_text(adapter),
        f"{adapter.parameters:,}" if adapter.parameters else "",
        format_size(adapter.size),
        adapter.base_name or "not named",
        "; ".join(_notes(root, adapter)),
    )


def _targets_text(adapter: ScannedAdapter) -> str:
    """The targets; the number of modules if there are many, as kohya's names contain the layers."""
    if adapter.format == "kohya" or len(adapter.targets) > _MAX_LISTED:
        return format_count(adapter.modules, "module")
    return ", ".join(adapter.targets)


def _tool(format: str) -> str:
    return "llama.cpp (GGUF)" if format == GGUF else FORMATS[format].tool


def _notes(root: Path, adapter: ScannedAdapter) -> Iterable[str]:
    if adapter.updates_are_zero:
        replaced = format_count(adapter.replaced, "weight")
        yield (
            f"its updates are zero, but it replaces {replaced}"
            if adapter.replaced
            else "not trained: its updates are zero"
        )
    if adapter.same_weights_as is not None:
        other = relative_text(root, adapter.same_weights_as)
        yield f"same as {other}" if adapter.has_same_config else f"weights of {other}, with another config"


def _summary(scan: FolderScan) -> str:
    found = [adapter for adapter in scan.adapters if adapter.error is None]
    runs = format_count(len({adapter.place.run for adapter in found}), "run")
    facts = [f"{format_count(len(found), 'adapter')} of {runs}"]
    counts = (
        ("with the weights of another", sum(one.same_weights_as is not None for one in found)),
        ("not trained", sum(one.updates_are_zero and not one.replaced for one in found)),
        ("more cannot be read", len(scan.adapters) - len(found)),
    )
    facts += [f"{count:,} {what}" for what, count in counts if count]
    where = shlex.quote(folder_argument(scan.root))
    return f"{', '.join(facts)}; to store them: adaptry import {where} --to NAMESPACE"


def json_of_scan(scan: FolderScan) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    return {
        "folder": str(scan.root),
        "adapters": [_json_of_adapter(scan.root, adapter) for adapter in scan.adapters],
        "not_searched": json_of_unsearched(scan.root, scan.unsearched),
    }


def json_of_unsearched(root: Path, folders: Iterable[UnsearchedFolder]) -> list[dict[str, str]]:
    return [{"path": relative_text(root, each.path), "reason": each.reason} for each in folders]


def _json_of_adapter(root: Path, adapter: ScannedAdapter) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    shown: dict[str, Any] = {
        "path": relative_text(root, adapter.path),
        "run": adapter.run,
        "step": adapter.step,
    }
    if adapter.error is not None:
        return {**shown, "error": {"code": adapter.error.code, "message": adapter.error.message}}
    same = adapter.same_weights_as
    return {
        **shown,
        "format": adapter.format,
        "method": adapter.method,
        "rank": max(adapter.ranks, default=None),
        "ranks": list(adapter.ranks),
        "targets": list(adapter.targets),
        "modules": adapter.modules,
        "parameters": adapter.parameters,
        "size": adapter.size,
        "replaced": adapter.replaced,
        "base_name": adapter.base_name,
        "updates_are_zero": adapter.updates_are_zero,
        "same_weights_as": relative_text(root, same) if same else None,
        "same_config": adapter.has_same_config if same else None,
    }
