"""Versions and other tables as CSV, for spreadsheets. No cell can begin a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from starlette.responses import Response

from adaptry.registry.records import VersionInfo

_COLUMNS = (
    "name", "version", "state", "aliases", "base", "method", "rank", "parameters", "size", "findings",
    "created_at", "created_by", "digest",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_response(file: str, versions: Iterable[VersionInfo]) -> Response:
    """The versions as a file: a column for each fact, then one for each metric."""
    versions = tuple(versions)
    metrics = sorted({name for version in versions for name in version.metrics})
    rows = []
    for one in versions:
        facts = (
            one.name, one.number, one.state, " ".join(one.aliases), one.base_name, one.method, one.rank,
            one.parameters, one.size, one.findings, one.created_at.isoformat(), one.created_by, one.digest,
        )  # fmt: skip
        rows.append((*facts, *(one.metrics.get(name, "") for name in metrics)))
    return table_response(file, (*_COLUMNS, *(f"metric.{name}" for name in metrics)), rows)


def table_response(file: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """Any table as a file."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name in columns])
    for row in rows:
        writer.writerow([value if isinstance(value, (int, float)) else _cell(value) for value in row])
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(text.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
