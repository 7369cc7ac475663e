"""Rows about bytes: their owners, their uploads, and pending deletes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row, rows_where

_GOES_ON = rows_where(text("is_finished IS 0"), on_postgres=text("is_finished IS false"))
"""Indexes only unfinished uploads: they are few, and finished ones are kept for a day."""


class FileRow(Row, table=True):
    """Bytes that an owner (an adapter's name, or a base's id) has. Other owners' rows are never revealed.

    `unneeded_since` is when a sweep found that no commit and no base of the owner names them. `stored_by` is
    their sender, who pays for them; None before schema 0020.
    """

    __tablename__ = "files"
    owner: str = Field(primary_key=True)
    digest: str = Field(primary_key=True, index=True)
    size: int = Field(sa_type=BigInteger)
    unneeded_since: datetime | None = Field(default=None, sa_type=Moment)
    stored_by: str | None = None


class PendingDeleteRow(Row, table=True):
    """Bytes without an owner, and the time since when they have none; `deleting_since` is when their deletion
    began.
    """

    __tablename__ = "pending_deletes"
    digest: str = Field(primary_key=True)
    since: datetime = Field(sa_type=Moment, index=True)
    deleting_since: datetime | None = Field(default=None, sa_type=Moment)


class WeightsDigestRow(Row, table=True):
    """The weights digest of a safetensors file: derived once for all owners."""

    __tablename__ = "weights"
    file_digest: str = Field(primary_key=True)
    weights_digest: str


class UploadRow(Row, table=True):
    """An upload session. Its bytes are a staging of the same id, which also knows their number."""

    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_owner", "owner", "digest"),
        Index("ix_uploads_open", "tenant", **_GOES_ON),
        Index("ix_uploads_coming", "digest", **_GOES_ON),
        Index("ix_uploads_by", "created_by", **_GOES_ON),
    )
    id: str = Field(primary_key=True)
    owner: str
    tenant: str
    digest: str
    size: int = Field(sa_type=BigInteger)
    created_by: str
    touched_at: datetime = Field(sa_type=Moment, index=True)
    is_finished: bool = False
