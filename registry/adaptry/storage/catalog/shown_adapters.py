"""Adapters as `AdapterInfo`, made of rows, and the listing by name for callers who may read all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptry.core.refs import AdapterName
from adaptry.registry import records
from adaptry.storage.catalog.adapter_rows import rows_by_name, visibility_of
from adaptry.storage.catalog.encoding import decode_list

if TYPE_CHECKING:
    from sqlalchemy import Row

    from adaptry.registry.records import AdapterInfo, Page
    from adaptry.storage.catalog.prepared import Reads


def page_by_name(tx: Reads, namespace: str | None, cursor: str | None, limit: int) -> Page[AdapterInfo]:
    """The adapters of a namespace, or of all, for a caller who may read all of them. Raises `Invalid` for a
    cursor of another listing.
    """
    rows, following = rows_by_name(tx, namespace, cursor, limit)
    return records.Page[records.AdapterInfo](items=tuple(map(adapter_of, rows)), next=following)


def adapter_of(row: Row[Any]) -> AdapterInfo:
    """The adapter in a row of its table, with the number of the `latest` version."""
    return records.AdapterInfo(
        name=AdapterName.parse(row.name),
        description=row.description,
        tags=decode_list(row.tags),
        visibility=visibility_of(row.visibility),
        created_at=row.created_at,
        updated_at=row.updated_at,
        versions=row.version_count,
        latest=row.latest,
        downloads=row.downloads,
    )
