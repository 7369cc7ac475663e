"""Adapters as `AdapterInfo`, made of rows, and the listing by name for a reader of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptry.core.identity import Visibility
from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterInfo, Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import ADAPTERS_BY_NAME

if TYPE_CHECKING:
    from sqlalchemy import Row

    from adaptry.storage.catalog.prepared import Reads

_BEYOND = "\x7f"
"""After every name: names are ASCII."""


def about_names(namespace: str | None) -> str:
    """Identifies the listing by name in its cursors."""
    return f"adapters {namespace or ''}"


def page_by_name(tx: Reads, namespace: str | None, cursor: str | None, limit: int) -> Page[AdapterInfo]:
    """The adapters of a namespace, or of all, for a reader of everything. Raises `Invalid` for a cursor of
    another listing.
    """
    about = about_names(namespace)
    first, beyond = ("", _BEYOND) if namespace is None else (f"{namespace}/", f"{namespace}/{_BEYOND}")
    after = first if cursor is None else max(first, cursors.decode(cursor, about))
    rows = run_select(tx, ADAPTERS_BY_NAME, {"after": after, "beyond": beyond, "count": limit + 1})
    shown = rows[:limit]
    return Page[AdapterInfo](
        items=tuple(map(adapter_of, shown)),
        next=cursors.encode(shown[-1].name, about) if len(rows) > limit else None,
    )


def adapter_of(row: Row[Any]) -> AdapterInfo:
    """The adapter of the columns of its table, with the number of the `latest` version."""
    return AdapterInfo(
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


def visibility_of(text: str) -> Visibility:
    """Any value other than `public` means private."""
    return "public" if text == "public" else "private"
