"""Rows of quotas: limits on storage and requests for namespaces and principals, and their use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class QuotaRow(Row, table=True):
    """The limits that are set for a name, or with the name `*` for all names of a scope; None is not set."""

    __tablename__ = "quotas"
    scope: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    bytes: int | None = Field(default=None, sa_type=BigInteger)
    versions: int | None = Field(default=None, sa_type=BigInteger)
    uploads: int | None = Field(default=None, sa_type=BigInteger)
    requests: int | None = Field(default=None, sa_type=BigInteger)
    set_at: datetime = Field(sa_type=Moment)
    set_by: str


class StoredUseRow(Row, table=True):
    """The bytes of files and the number of versions that a name stores: derived from `files` and
    `versions`.
    """

    __tablename__ = "stored_use"
    scope: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    bytes: int = Field(default=0, sa_type=BigInteger)
    versions: int = Field(default=0, sa_type=BigInteger)


class RequestUseRow(Row, table=True):
    """Requests of a name, as the registry's processes share them: the time, in seconds since 1970, when all
    of them will be paid for, and how much the last charge added to it. Lost counts begin again, so PostgreSQL
    does not log the table, and SQLite has it in a separate file (`sqlite_counters`).
    """

    __tablename__ = "request_use"
    scope: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    idle_at: float
    cost: float
