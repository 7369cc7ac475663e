"""Rows of adapters, of their namespaces, and of aliases."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, desc, text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row

EXISTS = text("deleted_at IS NULL")
"""Written out, since a database uses a partial index only if a statement has the same text."""


def _listing(name: str, *columns: str) -> Index:
    """An index for pages of adapters: those with the same first columns, sorted as `adapter_pages` sorts."""
    *shared, value = columns
    by = [value] if value == "name" else [desc(value), "name"]
    return Index(f"ix_adapters_{name}", *shared, *by, sqlite_where=EXISTS, postgresql_where=EXISTS)


class NamespaceRow(Row, table=True):
    """The namespaces in use, so that an identity's globs are matched against few rows."""

    __tablename__ = "namespaces"
    __table_args__ = (Index("ix_namespaces_folded", "folded", unique=True),)
    name: str = Field(primary_key=True)
    folded: str | None = None


class AdapterRow(Row, table=True):
    """An adapter, or the tombstone of a deleted one: its numbering continues if the name is used again.

    `moved_to` is the key of the adapter that had this name before it was renamed. `folded`: see
    `catalog.case_conflicts`; a tombstone has none. `version_count`: its versions, in any state.
    """

    __tablename__ = "adapters"
    __table_args__ = (
        Index("ix_adapters_folded", "folded", unique=True),
        _listing("visible", "visibility", "name"),
        _listing("updated", "visibility", "updated_at"),
        _listing("downloads", "visibility", "downloads"),
        _listing("versions", "visibility", "version_count"),
        _listing("namespace_updated", "namespace", "visibility", "updated_at"),
        _listing("namespace_downloads", "namespace", "visibility", "downloads"),
        _listing("namespace_versions", "namespace", "visibility", "version_count"),
    )
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    namespace: str = Field(index=True)
    description: str = ""
    tags: str = "[]"
    visibility: str = "private"
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    deleted_at: datetime | None = Field(default=None, sa_type=Moment)
    next_number: int = 1
    downloads: int = 0
    version_count: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    moved_to: int | None = Field(default=None, index=True)
    folded: str | None = None


class AliasRow(Row, table=True):
    """A movable name. A removed one stays without a version, so that its generations are not reused."""

    __tablename__ = "aliases"
    __table_args__ = (Index("ix_aliases_folded", "adapter_id", "folded", unique=True),)
    adapter_id: int = Field(primary_key=True, foreign_key="adapters.id")
    alias: str = Field(primary_key=True)
    version_id: int | None = Field(default=None, foreign_key="versions.id", index=True)
    generation: int = 1
    moved_at: datetime = Field(sa_type=Moment, index=True)
    moved_by: str
    folded: str | None = None
