"""Metrics in the catalog: values that are only appended, and a summary for searches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.registry.records import MetricInfo
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import MetricRow, MetricSummaryRow
from adaptry.storage.catalog.version_info import table_of
from adaptry.storage.catalog.versions import VersionRecord

_SUMMARIES = table_of(MetricSummaryRow)
_NEWEST = select_columns(_SUMMARIES.c.metric, _SUMMARIES.c.newest).where(
    _SUMMARIES.c.version_id == bindparam("key")
)


def append(
    tx: Transaction, version: VersionRecord, metrics: Mapping[str, float], at: datetime, by: str
) -> None:
    for metric, value in metrics.items():
        tx.add(MetricRow(version_id=version.key, metric=metric, value=value, logged_at=at, logged_by=by))
        row = tx.get(MetricSummaryRow, (version.key, metric))
        if row is None:
            row = MetricSummaryRow(
                version_id=version.key, metric=metric, newest=value, highest=value, lowest=value
            )
        row.newest, row.highest, row.lowest = value, max(row.highest, value), min(row.lowest, value)
        tx.add(row)


def is_logged() -> ColumnElement[bool]:
    """Of rows that were logged as metrics; the others are values of a file (`catalog.evidence`)."""
    return col(MetricRow.file_digest).is_(None)


def newest(tx: Transaction, version: VersionRecord) -> dict[str, float]:
    """The newest value of each metric."""
    return {row.metric: row.newest for row in run_select(tx, _NEWEST, {"key": version.key})}


def history(tx: Transaction, version: VersionRecord) -> tuple[MetricInfo, ...]:
    """Every logged value, oldest first."""
    query = select(MetricRow).where(MetricRow.version_id == version.key, is_logged())
    rows = tx.exec(query.order_by(col(MetricRow.id)))
    return tuple(
        MetricInfo(
            metric=row.metric,
            value=row.value,
            number=version.number,
            logged_at=row.logged_at,
            logged_by=row.logged_by,
        )
        for row in rows
    )
