"""Rows of signing in at an identity provider: its users, and its groups."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class ExternalUserRow(Row, table=True):
    """A user of an identity provider, and the user that they are here.

    `confirmed_at` is when the provider last confirmed the user; `ended_at` when it refused. `refresh_token`
    is sealed by the server. `claimed_until` keeps servers from asking the provider at the same time.
    """

    __tablename__ = "external_users"
    __table_args__ = (UniqueConstraint("issuer", "subject"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    issuer: str
    subject: str
    principal_id: int = Field(foreign_key="principals.id", index=True)
    refresh_token: str | None = None
    confirmed_at: datetime | None = Field(default=None, sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    claimed_until: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class ProviderGroupRow(Row, table=True):
    """A group as the provider's claim names it, and the group that its members join here."""

    __tablename__ = "provider_groups"
    claim: str = Field(primary_key=True)
    group_id: int = Field(foreign_key="principal_groups.id", index=True)
    set_at: datetime = Field(sa_type=Moment)
    set_by: str
