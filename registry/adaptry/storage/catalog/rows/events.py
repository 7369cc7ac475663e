"""Rows of events, and of stored answers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row


class EventRow(Row, table=True):
    """An event; written in the transaction of the change, never changed."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_adapter", "adapter_id", "seq"), KEYS_GIVEN_ONCE)
    seq: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    at: datetime = Field(sa_type=Moment)
    by: str
    kind: str
    adapter_id: int | None = Field(default=None, foreign_key="adapters.id")
    name: str | None = None
    number: int | None = None
    detail: str = "{}"


class StoredResponseRow(Row, table=True):
    """The answer to a request with an idempotency key, so that it is not repeated; kept for a day."""

    __tablename__ = "answers"
    identity: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request: str
    answer: str = Field(sa_type=Text)
    given_at: datetime = Field(sa_type=Moment, index=True)
