"""Rows of files that evaluation programs posted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary, Text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row


class PostedFileRow(Row, table=True):
    """A posted file. With a `reason` it is kept apart, and `content` has its compressed bytes. Without one it
    became evidence of `subject`, a digest; the row is a receipt for a day, and `content` is None for samples.
    """

    __tablename__ = "posted_files"
    __table_args__ = (
        Index("ix_posted_files_run", "namespace", "posted_by", "run"),
        Index("ix_posted_files_namespace", "namespace", "id"),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    namespace: str
    path: str = Field(sa_type=Text)
    run: str
    task: str | None = None
    file_digest: str
    git_id: str
    size: int = Field(sa_type=LONG)
    content: bytes | None = Field(default=None, sa_type=LargeBinary)
    stored: int = Field(sa_type=LONG)
    posted_at: datetime = Field(sa_type=Moment, index=True)
    posted_by: str
    model: str | None = None
    adapter: str | None = None
    revision: str | None = None
    subject: str | None = None
    reason: str | None = Field(default=None, sa_type=Text)
