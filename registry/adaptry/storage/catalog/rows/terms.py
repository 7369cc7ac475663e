"""Rows of the search index."""

from __future__ import annotations

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Row


class TermRow(Row, table=True):
    """A field and a text that a version has or had (`module`, `q_proj`): the terms of the search index."""

    __tablename__ = "terms"
    __table_args__ = (UniqueConstraint("field", "text"),)
    id: int | None = Field(default=None, primary_key=True)
    field: str
    text: str


class PostingRow(Row, table=True):
    """A version's term. Indexed in both orders: the newest versions of a term, and the terms of a version."""

    __tablename__ = "postings"
    __table_args__ = (Index("ix_postings_version", "version_id", "term_id"), {"sqlite_with_rowid": False})
    term_id: int = Field(primary_key=True, foreign_key="terms.id")
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")


class IndexUpdateRow(Row, table=True):
    """An adapter whose search terms have changed, while versions with a number less than `below` may still
    have earlier ones. `new_terms`: a JSON list of the fields and texts that those may lack.
    """

    __tablename__ = "index_updates"
    adapter_id: int = Field(primary_key=True, foreign_key="adapters.id")
    below: int
    new_terms: str
