"""Rows of metrics of versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row, rows_where

HAS_FILE, IS_LOGGED = text("file_digest IS NOT NULL"), text("file_digest IS NULL")
IN_FORCE = text("task IS NOT NULL AND withdrawn_at IS NULL")
"""Written out, since a database uses a partial index only if a statement has the same words."""


class MetricRow(Row, table=True):
    """One measured value: a logged metric, or a value of a file (then `file_digest` is set).

    Only its withdrawal changes, once. `samples_digest` is the file with the value of each document.
    """

    __tablename__ = "metric_values"
    __table_args__ = (
        Index("ix_metric_values_version", "version_id", "id"),
        Index("ix_metric_values_task", "version_id", "task", "metric", "id"),
        Index(
            "ix_metric_values_file",
            "version_id",
            "file_digest",
            **rows_where(HAS_FILE),
        ),
        Index(
            "ix_metric_values_measured",
            *("task", "metric", "value", "version_id", "id"),
            **rows_where(IN_FORCE),
        ),
        Index(
            "ix_metric_values_logged",
            "version_id",
            "id",
            **rows_where(IS_LOGGED),
        ),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    version_id: int = Field(foreign_key="versions.id", ondelete="CASCADE")
    metric: str
    value: float
    logged_at: datetime = Field(sa_type=Moment)
    logged_by: str
    base_id: str | None = None
    task: str | None = None
    task_version: str | None = None
    task_hash: str | None = None
    filter: str | None = None
    stderr: float | None = None
    n: int | None = Field(default=None, sa_type=BigInteger)
    direction: str | None = None
    dataset: str | None = None
    step: int | None = Field(default=None, sa_type=BigInteger)
    harness: str | None = None
    harness_version: str | None = None
    harness_commit: str | None = None
    chat_template: str | None = None
    format: str | None = None
    file_digest: str | None = None
    samples_digest: str | None = None
    withdrawn_at: datetime | None = Field(default=None, sa_type=Moment)
    withdrawn_by: str | None = None
    withdrawn_reason: str | None = None
    settings: str | None = None


class MetricSummaryRow(Row, table=True):
    """The newest, highest and lowest value of a version's logged metric, for searches."""

    __tablename__ = "metric_summaries"
    __table_args__ = (
        Index("ix_metric_summaries_newest", "metric", "newest", "version_id"),
        Index("ix_metric_summaries_highest", "metric", "highest"),
        Index("ix_metric_summaries_lowest", "metric", "lowest"),
    )
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    metric: str = Field(primary_key=True)
    newest: float
    highest: float
    lowest: float
