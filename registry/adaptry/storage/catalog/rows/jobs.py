"""Rows of jobs, their steps and logs, runners, and schedules."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class SubmittedRow(Row):
    """Columns of a request: its submitter, and the rights that it therefore has (`catalog.rights`)."""

    by: str
    rights: str = Field(sa_type=Text)


class JobRow(SubmittedRow, table=True):
    """A job: its request, submitter and result."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state", "state", "key"), KEYS_GIVEN_ONCE)
    key: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    kind: str
    task: str = Field(sa_type=Text)
    namespace: str = Field(index=True)
    state: str
    needs: str = Field(sa_type=Text)
    priority: int
    submitted_at: datetime = Field(sa_type=Moment)
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    finished_at: datetime | None = Field(default=None, sa_type=Moment)
    attempts: int = 1
    result: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)


class JobStepRow(Row, table=True):
    """A step of a job. `attempt` is its number of attempts: only the last one may change anything."""

    __tablename__ = "job_steps"
    job_key: int = Field(primary_key=True, foreign_key="jobs.key")
    step: str = Field(primary_key=True)
    attempt: int = 0
    runner: str | None = None
    activity: str = ""
    done: int = Field(default=0, sa_type=BigInteger)
    total: int = Field(default=0, sa_type=BigInteger)
    result: str | None = Field(default=None, sa_type=Text)


class JobLineRow(Row, table=True):
    """A line of a job's log."""

    __tablename__ = "job_lines"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    key: int | None = Field(default=None, primary_key=True)
    job_key: int = Field(foreign_key="jobs.key", index=True)
    at: datetime = Field(sa_type=Moment)
    step: str
    text: str = Field(sa_type=Text)


class RunnerRow(Row, table=True):
    """A runner of jobs. `beats` increases while it is alive, so no clocks are compared."""

    __tablename__ = "runners"
    id: str = Field(primary_key=True)
    host: str
    devices: str
    tags: str
    concurrency: int
    memory: int = Field(sa_type=BigInteger)
    beats: int = Field(default=0, sa_type=BigInteger)
    seen_at: datetime = Field(sa_type=Moment)


class JobScheduleRow(SubmittedRow, table=True):
    """A job that is submitted at the times of its `cron` expression (in UTC). Names are unique within a
    namespace.
    """

    __tablename__ = "job_schedules"
    namespace: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    cron: str
    ordered: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
