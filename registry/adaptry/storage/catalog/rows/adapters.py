"""Rows of adapters, of their namespaces, and of aliases."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, col

from adaptry.storage.catalog.rows.row import Moment, Row, rows_where

EXISTS = text("deleted_at IS NULL")
"""Written out, since a database uses a partial index only if a statement has the same text."""
HAS_REMOVAL = text("deleted_at IS NOT NULL AND version_count > 0")
"""The condition of a deleted adapter that still has versions (`catalog.removals`); written out as above."""


class NamespaceRow(Row, table=True):
    """The namespaces in use, so that an identity's globs are matched against few rows."""

    __tablename__ = "namespaces"
    __table_args__ = (Index("ix_namespaces_folded", "folded", unique=True),)
    name: str = Field(primary_key=True)
    folded: str | None = None


class AdapterRow(Row, table=True):
    """An adapter, or the tombstone of a deleted one: its numbering continues if the name is used again.

    `moved_to` is the key of the adapter that had this name before it was renamed. `folded`: see
    `catalog.case_conflicts`; a tombstone has none. `version_count`: its versions, in any
    state; those of a tombstone are being removed.
    """

    __tablename__ = "adapters"
    __table_args__ = (
        Index("ix_adapters_folded", "folded", unique=True),
        Index("ix_adapters_visible", "visibility", "name", **rows_where(EXISTS)),
        Index("ix_adapters_removal", "id", **rows_where(HAS_REMOVAL)),
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


for _order, _value in {
    "updated": col(AdapterRow.updated_at),
    "downloads": col(AdapterRow.downloads),
    "versions": col(AdapterRow.version_count),
}.items():
    # For pages of adapters, sorted as `adapter_pages` sorts them; of all namespaces, and of one.
    _by = (col(AdapterRow.visibility), _value.desc(), col(AdapterRow.name))
    Index(f"ix_adapters_{_order}", *_by, **rows_where(EXISTS))
    Index(
        f"ix_adapters_namespace_{_order}",
        col(AdapterRow.namespace),
        *_by,
        **rows_where(EXISTS),
    )


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
