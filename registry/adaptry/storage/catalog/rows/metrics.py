"""Rows of what was measured of versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row


class MetricRow(Row, table=True):
    """One logged value; never changed."""

    __tablename__ = "metric_values"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    version_id: int = Field(foreign_key="versions.id", ondelete="CASCADE", index=True)
    metric: str
    value: float
    logged_at: datetime = Field(sa_type=Moment)
    logged_by: str


class MetricSummaryRow(Row, table=True):
    """The newest, highest and lowest value of a version's metric, for searches."""

    __tablename__ = "metric_summaries"
    __table_args__ = (
        Index("ix_metric_summaries_newest", "metric", "newest"),
        Index("ix_metric_summaries_highest", "metric", "highest"),
        Index("ix_metric_summaries_lowest", "metric", "lowest"),
    )
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    metric: str = Field(primary_key=True)
    newest: float
    highest: float
    lowest: float
