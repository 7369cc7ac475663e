"""Rows of tokens."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class TokenRow(Row, table=True):
    """A token by the SHA-256 of its secret; the secret is nowhere."""

    __tablename__ = "tokens"
    id: int | None = Field(default=None, primary_key=True)
    secret_sha256: str = Field(unique=True)
    last_four: str
    kind: str
    name: str
    role: str
    namespaces: str
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
