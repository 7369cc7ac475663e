"""Rows of workers, their loaded adapters, and rollouts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Text, UniqueConstraint, text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row, rows_where

LOADED = text("condition NOT IN ('failed', 'unloaded')")
"""Written out, since a database uses a partial index only if a statement has the same text."""


class WorkerRow(Row, table=True):
    """A worker's last report. If its engine does not answer, `is_answering` is false. A person's declaration
    that it is gone (`gone_*`) holds until the next report.

    Names are unique per owner, so that nobody can take another owner's name.
    """

    __tablename__ = "workers"
    __table_args__ = (UniqueConstraint("owner", "name"),)
    id: int | None = Field(default=None, primary_key=True)
    name: str
    owner: str = Field(index=True)
    engine: str
    version: str | None = None
    base: str | None = None
    url: str | None = None
    slots: int | None = None
    last_event: int | None = Field(default=None, sa_type=BigInteger)
    lease: int
    first_at: datetime = Field(sa_type=Moment)
    reported_at: datetime = Field(sa_type=Moment)
    is_answering: bool = True
    problems: str = Field(default="[]", sa_type=Text)
    max_age: int | None = None
    gone_at: datetime | None = Field(default=None, sa_type=Moment)
    gone_by: str | None = None
    gone_reason: str | None = None
    base_id: str | None = None
    """No foreign key: the base need not be registered."""


class ResidentRow(Row, table=True):
    """A version that a worker has or had under a name: kept for a while as evidence for recalls."""

    __tablename__ = "residents"
    __table_args__ = (
        Index("ix_residents_version", "version_id"),
        Index("ix_residents_loaded", "version_id", "worker_id", **rows_where(LOADED)),
    )
    worker_id: int = Field(primary_key=True, foreign_key="workers.id", ondelete="CASCADE")
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    served_as: str = Field(primary_key=True)
    condition: str
    since: datetime = Field(sa_type=Moment)
    last_used: datetime | None = Field(default=None, sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    dropped_at: datetime | None = Field(default=None, sa_type=Moment)
    reason: str | None = None


class RolloutRow(Row, table=True):
    """A version taking over an alias step by step; `was_*` is the alias's target at its start."""

    __tablename__ = "rollouts"
    __table_args__ = (Index("ix_rollouts_alias", "adapter_id", "alias"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    # No foreign key, as for commits: a rollout is deleted with its version.
    adapter_id: int
    alias: str
    version_id: int = Field(foreign_key="versions.id", ondelete="CASCADE", index=True)
    was_number: int
    was_digest: str
    alias_generation: int
    steps: str
    step: int = 0
    interval: int | None = None
    stage: str = "running"
    reason: str | None = None
    generation: int = 1
    started_at: datetime = Field(sa_type=Moment)
    started_by: str
    step_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
