"""Rows of bases."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, Text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class BaseRow(Row, table=True):
    """A base: its compressed record, its summary for listings, and its visibility."""

    __tablename__ = "bases"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    key: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    architecture: str = Field(index=True)
    record: bytes = Field(sa_type=LargeBinary)
    summary: str = Field(sa_type=Text)
    visibility: str = "private"
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class BaseNameRow(Row, table=True):
    """A name that a base goes by. `namespace` is the part before its slash, or empty for a one-word name."""

    __tablename__ = "base_names"
    __table_args__ = (Index("ix_base_names_folded", "folded", unique=True),)
    name: str = Field(primary_key=True)
    namespace: str = Field(index=True)
    base_id: str = Field(foreign_key="bases.id", index=True)
    folded: str | None = None


class BaseFileRow(Row, table=True):
    """A file of a base whose weights are stored."""

    __tablename__ = "base_files"
    base_id: str = Field(primary_key=True, foreign_key="bases.id")
    path: str = Field(primary_key=True)
    digest: str = Field(index=True)
    size: int = Field(sa_type=BigInteger)
