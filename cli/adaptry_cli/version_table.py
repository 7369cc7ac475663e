"""The table of versions that `adaptry ls` and `search` print."""

from __future__ import annotations

from adaptry.registry.records import VersionInfo
from adaptry_cli.out import (
    format_number,
    print_json,
)
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import base_text


def print_versions(found: list[VersionInfo], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("version", "aliases", "state", "method", "rank", "modules", "base", "metrics", "findings"),
            map(_version_row, found),
            right=("rank", "findings"),
        )


def _version_row(version: VersionInfo) -> tuple[str, ...]:
    return (
        version.label,
        ", ".join(version.aliases),
        _state(version),
        version.method,
        "" if version.rank is None else str(version.rank),
        ", ".join(version.targets),
        base_text(version),
        ", ".join(f"{name} {format_number(value)}" for name, value in version.metrics.items()),
        str(version.findings or ""),
    )


def _state(version: VersionInfo) -> str:
    """What is not as it mostly is: a state other than active, and damage."""
    state = "" if version.state == "active" else version.state
    return " ".join(filter(None, (state, "damaged" if version.is_damaged else "")))
