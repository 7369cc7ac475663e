"""Metrics in the catalog: values that are only appended, and a summary for searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

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


_KEYS = "adaptry_metric_keys"


@dataclass
class MetricKeys:
    """The keys of the rows that a transaction appends, so that it appends the same ones when it is repeated
    after a rollback: PostgreSQL's sequences do not go back, and a decision is known by the keys of its facts.
    """

    given: list[int] = field(default_factory=list)
    used: int = 0

    def apply(self, tx: Transaction) -> None:
        """To a transaction that begins, for the first time or again."""
        self.used = 0
        if tx.get_bind().dialect.name == "postgresql":  # SQLite's keys do go back
            tx.info[_KEYS] = self

    def next(self) -> int | None:
        """The next key of the rolled back transaction; None for a new one."""
        self.used += 1
        return self.given[self.used - 1] if self.used <= len(self.given) else None


def append(
    tx: Transaction, version: VersionRecord, metrics: Mapping[str, float], at: datetime, by: str
) -> None:
    keys: MetricKeys | None = tx.info.get(_KEYS)
    for metric, value in metrics.items():
        logged = MetricRow(version_id=version.key, metric=metric, value=value, logged_at=at, logged_by=by)
        if keys and (key := keys.next()) is not None:
            logged.id = key
        tx.add(logged)
        if keys and logged.id is None:
            tx.flush()
            keys.given.append(cast(int, logged.id))
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
