"""Rows of jobs: what was asked, its steps and its log, who runs them, and what is asked again and again."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from sqlalchemy import BigInteger, Index, Text
from sqlmodel import Field

from adaptry.core.identity import Identity, Role
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class SubmittedRow(Row):
    """Columns of what somebody asked for: who, and the rights that it therefore has."""

    by: str
    by_role: str
    by_namespaces: str

    @property
    def submitter(self) -> Identity:
        return Identity(self.by, cast(Role, self.by_role), decode_list(self.by_namespaces))


class JobRow(SubmittedRow, table=True):
    """A job: what was asked, by whom, and what became of it."""

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
    tries: int = 1
    result: str | None = Field(default=None, sa_type=Text)
    fault: str | None = Field(default=None, sa_type=Text)


class JobStepRow(Row, table=True):
    """A step of a job. `turn` goes up whenever somebody begins it: only the last may change anything."""

    __tablename__ = "job_steps"
    job_key: int = Field(primary_key=True, foreign_key="jobs.key")
    step: str = Field(primary_key=True)
    turn: int = 0
    runner: str | None = None
    what: str = ""
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
    """Who runs jobs. `beats` goes up as long as it lives; how late it is, nobody needs to know."""

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
    """An order that is given again and again, when its `cron` expression says so (in UTC). Each namespace has
    names of its own.
    """

    __tablename__ = "job_schedules"
    namespace: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    cron: str
    ordered: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
