"""Rows of an adapter's branches: commits, and the names of commits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class CommitRow(Row, table=True):
    """A commit of a branch. Its `id` orders an adapter's commits by age; dropped commits stay."""

    __tablename__ = "commits"
    __table_args__ = (Index("ix_commits_adapter", "adapter_id", "digest"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    adapter_id: int = Field(foreign_key="adapters.id")
    digest: str = Field(foreign_key="revisions.digest", index=True)
    branch: str
    # No foreign key: rows are deleted only with the whole adapter, and the check of each would read all of
    # them.
    parent_id: int | None = None
    title: str
    message: str = ""
    author: str
    at: datetime = Field(sa_type=Moment)
    carries: int | None = None


class GitRefRow(Row, table=True):
    """A branch or a tag: an adapter's name for a commit. Every adapter has the branch `main`."""

    __tablename__ = "marks"
    __table_args__ = (Index("ix_marks_folded", "adapter_id", "folded", unique=True),)
    adapter_id: int = Field(primary_key=True, foreign_key="adapters.id")
    name: str = Field(primary_key=True)
    kind: str
    commit_id: int = Field(foreign_key="commits.id", index=True)
    message: str = ""
    set_at: datetime = Field(sa_type=Moment)
    set_by: str
    folded: str | None = None
