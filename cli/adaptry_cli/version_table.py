"""The table of versions that `adaptry ls` and `search` print."""

from __future__ import annotations

from adaptry.adapters.last_part import last_part
from adaptry.registry.bases import Bases
from adaptry.registry.records import VersionInfo
from adaptry_cli.base_names import with_base_names
from adaptry_cli.output import (
    print_json,
)
from adaptry_cli.tables import print_table
from adaptry_cli.version_text import base_text


def print_versions(bases: Bases, versions: list[VersionInfo], as_json: bool) -> None:
    if as_json:
        print_json(versions)
    elif versions:
        print_table(
            ("version", "state", "aliases", "metrics", "method", "rank", "modules", "base", "findings"),
            map(_version_row, with_base_names(bases, versions)),
            right=("rank", "findings"),
            cut=("aliases", "modules", "base", "metrics"),
            drop=("modules", "base", "method", "rank", "findings", "metrics", "aliases"),
        )


def _version_row(version: VersionInfo) -> tuple[str, ...]:
    return (
        version.label,
        _state(version),
        ", ".join(version.aliases),
        ", ".join(f"{name} {value:.4g}" for name, value in version.metrics.items()),
        version.method,
        "" if version.rank is None else str(version.rank),
        ", ".join(dict.fromkeys(map(last_part, version.targets))),
        base_text(version).removesuffix(" (verified)"),  # nearly every base is verified
        str(version.findings or ""),
    )


def _state(version: VersionInfo) -> str:
    """A state other than active, and damage."""
    state = "" if version.state == "active" else version.state
    return ", ".join(filter(None, (state, "damaged" if version.is_damaged else "")))
