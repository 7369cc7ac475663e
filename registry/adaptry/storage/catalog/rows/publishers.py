"""Rows of trusted publishing: issuers, publishers, and the ID tokens that were exchanged."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class IssuerRow(Row, table=True):
    """A trusted provider of ID tokens for CI jobs."""

    __tablename__ = "issuers"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    url: str = Field(unique=True)
    kind: str
    audience: str
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class PublisherRow(Row, table=True):
    """CI jobs that may push to the adapter `namespace`/`name`, which need not exist, as a service account."""

    __tablename__ = "publishers"
    __table_args__ = (Index("ix_publishers_namespace_name", "namespace", "name"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    namespace: str
    name: str
    issuer_id: int = Field(foreign_key="issuers.id", index=True)
    principal_id: int = Field(foreign_key="principals.id")
    project_id: str
    owner_id: str
    workflow: str
    environment: str | None = None
    branch: str | None = None
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class UsedIdTokenRow(Row, table=True):
    """An ID token that was exchanged, by the SHA-256 of its issuer and `jti`, until it has expired."""

    __tablename__ = "used_id_tokens"
    jti_sha256: str = Field(primary_key=True)
    expires_at: datetime = Field(index=True, sa_type=Moment)
