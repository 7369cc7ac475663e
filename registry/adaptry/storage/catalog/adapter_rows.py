"""The rows of adapters in name order, and as values for a listing, for callers who may read all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptry.core.refs import AdapterName
from adaptry.registry.quick_values import ListedAdapter, ListedPage
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import ADAPTERS_BY_NAME

if TYPE_CHECKING:
    from sqlalchemy import Row

    from adaptry.core.identity import Visibility
    from adaptry.storage.catalog.prepared import Reads

_AFTER_ALL_NAMES = "\x7f"
"""After every name: names are ASCII."""


def about_names(namespace: str | None) -> str:
    """Identifies the listing by name in its cursors."""
    return f"adapters {namespace or ''}"


def rows_by_name(
    tx: Reads, namespace: str | None, cursor: str | None, limit: int
) -> tuple[Sequence[Row[Any]], str | None]:
    """The adapters of a namespace, or of all, and the next cursor. Raises `Invalid` for a cursor of another
    listing. (`Any`: typed by columns.)
    """
    about = about_names(namespace)
    first, beyond = (
        ("", _AFTER_ALL_NAMES) if namespace is None else (f"{namespace}/", f"{namespace}/{_AFTER_ALL_NAMES}")
    )
    after = first if cursor is None else max(first, cursors.decode(cursor, about))
    rows = run_select(tx, ADAPTERS_BY_NAME, {"after": after, "beyond": beyond, "count": limit + 1})
    shown = rows[:limit]
    return shown, cursors.encode(shown[-1].name, about) if len(rows) > limit else None


def quick_page(tx: Reads, namespace: str | None, cursor: str | None, limit: int) -> ListedPage:
    """The adapters of `rows_by_name`, as values for a listing."""
    rows, following = rows_by_name(tx, namespace, cursor, limit)
    return ListedPage(tuple(map(_listed_adapter, rows)), following)


def _listed_adapter(row: Row[Any]) -> ListedAdapter:
    return ListedAdapter(
        name=AdapterName.parse(row.name),
        description=row.description,
        visibility=visibility_of(row.visibility),
        updated_at=row.updated_at,
        versions=row.version_count,
        latest=row.latest,
        downloads=row.downloads,
    )


def visibility_of(text: str) -> Visibility:
    """Any value other than `public` means private."""
    return "public" if text == "public" else "private"
