"""Metrics in the catalog: values that are only appended, and a summary for searches."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import records
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import driver_of, run_select
from adaptry.storage.catalog.prepared_changes import count_changed, insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.versions import VersionRecord


@statement
def _newest() -> Selection:
    return sa.select(tables.metric_summaries.c.metric, tables.metric_summaries.c.newest).where(
        tables.metric_summaries.c.version_id == sa.bindparam("key")
    )


@statement
def _add_to_summary() -> sa.Update:
    summaries, value = tables.metric_summaries, sa.bindparam("value", type_=sa.Float())
    return (
        summaries.update()
        .where(
            summaries.c.version_id == sa.bindparam("of_version"),
            summaries.c.metric == sa.bindparam("of_metric"),
        )
        .values(
            newest=value,
            highest=sa.case((summaries.c.highest < value, value), else_=summaries.c.highest),
            lowest=sa.case((summaries.c.lowest > value, value), else_=summaries.c.lowest),
        )
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
        """Makes a transaction use these keys. Call it whenever the transaction begins."""
        self.used = 0
        if not isinstance(driver_of(tx), sqlite3.Connection):  # SQLite does reuse keys after a rollback
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
        row = {"version_id": version.key, "metric": metric, "value": value, "logged_at": at, "logged_by": by}
        key = keys.next() if keys else None
        given = insert_new(tx, "metric_values", row if key is None else {**row, "id": key})
        if keys and key is None:
            keys.given.append(given)
        _summarise(tx, version.key, metric, value)


def _summarise(tx: Transaction, version: int, metric: str, value: float) -> None:
    key = {"of_version": version, "of_metric": metric}
    if not count_changed(tx, _add_to_summary, {**key, "value": value}):
        summary = {"version_id": version, "metric": metric}
        insert_new(tx, "metric_summaries", {**summary, "newest": value, "highest": value, "lowest": value})


def is_logged() -> sa.ColumnElement[bool]:
    """The condition that a row was logged as a metric; other rows are values from a file
    (`catalog.evidence`).
    """
    return sm.col(orm.MetricRow.file_digest).is_(None)


def newest(tx: Transaction, version: VersionRecord) -> dict[str, float]:
    """The newest value of each metric."""
    return {row.metric: row.newest for row in run_select(tx, _newest, {"key": version.key})}


def count_logged(tx: Transaction, version: VersionRecord) -> int:
    """How many values were logged for a version."""
    query = sm.select(sa.func.count()).select_from(orm.MetricRow)
    return tx.exec(query.where(orm.MetricRow.version_id == version.key, is_logged())).one()


def history(tx: Transaction, version: VersionRecord) -> tuple[records.MetricInfo, ...]:
    """Every logged value, oldest first."""
    query = sm.select(orm.MetricRow).where(orm.MetricRow.version_id == version.key, is_logged())
    rows = tx.exec(query.order_by(sm.col(orm.MetricRow.id)))
    return tuple(
        records.MetricInfo(
            metric=row.metric,
            value=row.value,
            number=version.number,
            logged_at=row.logged_at,
            logged_by=row.logged_by,
        )
        for row in rows
    )
