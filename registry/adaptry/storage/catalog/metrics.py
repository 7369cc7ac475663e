"""Metrics in the catalog: values appended for ever, and beside them what searches compare."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import col, select

from adaptry.registry.records import MetricInfo
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import MetricRow, MetricSummaryRow
from adaptry.storage.catalog.versions import VersionRecord


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


def newest(tx: Transaction, version: VersionRecord) -> dict[str, float]:
    """The newest value of each metric."""
    rows = tx.exec(select(MetricSummaryRow).where(MetricSummaryRow.version_id == version.key))
    return {row.metric: row.newest for row in rows}


def history(tx: Transaction, version: VersionRecord) -> tuple[MetricInfo, ...]:
    """Every value, oldest first."""
    rows = tx.exec(select(MetricRow).where(MetricRow.version_id == version.key).order_by(col(MetricRow.id)))
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
