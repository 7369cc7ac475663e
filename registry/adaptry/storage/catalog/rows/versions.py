"""Rows of versions: the revision, the columns of listings and searches, and derived data."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row, rows_where

WITHDRAWN = text("state IN ('quarantined', 'revoked')")
"""Written out, since a database uses a partial index only if a statement has the same text."""


SORTED = ("created_at", "rank", "alpha", "size", "downloads", "findings")
"""The columns by which versions are found and sorted; equal values are in the order of keys."""


class RevisionRow(Row, table=True):
    """A manifest, byte for byte. It is one revision for all adapters."""

    __tablename__ = "revisions"
    digest: str = Field(primary_key=True)
    manifest: bytes = Field(sa_type=LargeBinary)


class VersionRow(Row, table=True):
    """A version, with the columns of listings and searches. Its `id` orders all versions by age."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("adapter_id", "number"),
        UniqueConstraint("adapter_id", "digest"),
        Index("ix_versions_base", "base_id", "adapter_id"),
        *(Index(f"ix_versions_{column}", column, "id") for column in SORTED),
        Index("ix_versions_declared", "base_name", "base_status"),
        Index("ix_versions_withdrawn", "weights", **rows_where(WITHDRAWN)),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True)
    adapter_id: int = Field(foreign_key="adapters.id")
    number: int = Field(index=True)
    digest: str = Field(foreign_key="revisions.digest", index=True)
    state: str = "active"
    state_generation: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    state_reason: str | None = None
    state_successor: str | None = None
    state_at: datetime | None = Field(default=None, sa_type=Moment)
    state_by: str | None = None
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    method: str
    rank: int | None = None
    alpha: float | None = None
    targets: str = "[]"
    traits: str = "[]"
    parameters: int = Field(default=0, sa_type=BigInteger, index=True)
    size: int = Field(default=0, sa_type=BigInteger)
    weights: str
    base_id: str | None = None
    base_name: str | None = None
    base_status: str = "unknown"
    bound_base: str | None = None
    findings: int = 0
    downloads: int = 0


class VersionDetailRow(Row, table=True):
    """Data derived from a version's files, compressed; separate from `versions`, so that searches read short
    rows.
    """

    __tablename__ = "version_details"
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    spec: bytes = Field(sa_type=LargeBinary)
    report: bytes = Field(sa_type=LargeBinary)
    forced: str | None = None
