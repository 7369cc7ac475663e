"""Versions as CSV."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

from adaptry.registry.records import VersionInfo
from adaptry_api.pages.text_csv import csv_file

_COLUMNS = (
    "name", "version", "state", "aliases", "base", "method", "rank", "parameters", "size", "findings",
    "created_at", "created_by", "digest",
)  # fmt: skip


def csv_response(file: str, versions: Iterable[VersionInfo]) -> Response:
    """The versions as a file: a column for each fact, then one for each metric."""
    versions = tuple(versions)
    metrics = sorted({name for version in versions for name in version.metrics})
    rows = (
        (
            one.name, one.number, one.state, " ".join(one.aliases), one.base_name, one.method, one.rank,
            one.parameters, one.size, one.findings, one.created_at, one.created_by, one.digest,
            *(one.metrics.get(name) for name in metrics),
        )
        for one in versions
    )  # fmt: skip
    return csv_file(file, (*_COLUMNS, *(f"metric.{name}" for name in metrics)), rows)
