"""Rows of webhooks, and of the messages to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Text, text
from sqlmodel import Field

from adaptry.storage.catalog.rows.jobs import SubmittedRow
from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row, rows_where

_IS_PENDING = text("state = 'pending'")


class WebhookRow(SubmittedRow, table=True):
    """A webhook and its secrets. Messages were made of all events up to number `cursor`."""

    __tablename__ = "webhooks"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    id: int | None = Field(default=None, primary_key=True)
    namespace: str = Field(index=True)
    url: str = Field(sa_type=Text)
    adapters: str
    kinds: str = Field(sa_type=Text)
    secret: str
    old_secret: str | None = None
    old_secret_until: datetime | None = Field(default=None, sa_type=Moment)
    cursor: int = Field(sa_type=LONG)
    failures: int = 0
    created_at: datetime = Field(sa_type=Moment)
    disabled_at: datetime | None = Field(default=None, sa_type=Moment)
    disabled_reason: str | None = None


class WebhookDeliveryRow(Row, table=True):
    """A message to a webhook, whose body is made of its event at each try. A sender that tries it sets
    `due_at` to when others may."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "due_at",
            **rows_where(_IS_PENDING),
        ),
        Index("ix_webhook_deliveries_webhook", "webhook_id", "id"),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    message: str = Field(unique=True)
    webhook_id: int = Field(foreign_key="webhooks.id")
    event: int | None = Field(default=None, sa_type=LONG)
    kind: str
    state: str = "pending"
    created_at: datetime = Field(sa_type=Moment, index=True)
    due_at: datetime = Field(sa_type=Moment)
    attempts: int = 0
    tried_at: datetime | None = Field(default=None, sa_type=Moment)
    status: int | None = None
    error: str | None = None
    milliseconds: int | None = None
