"""Lists that were answered whole before they had cursors: clients of that time still get a JSON array.

Without `limit` and `cursor`, the answer is the whole list, as long as it is short; a longer one is refused,
since such a client would take a part for the whole. With either, the answer is a page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Query

from adaptry.core.errors import Invalid
from adaptry.registry.records import Item, Page

MOST = 1_000
"""Most entries of a list without pages."""
_PAGE = 200
OptionalLimit = Annotated[
    int | None,
    Query(
        json_schema_extra={"minimum": 1, "maximum": 200},
        description="The entries of a page. Without `limit` and `cursor`, the answer is an array of all"
        f" entries, and an error if there are more than {MOST:,}.",
    ),
]


def page_or_whole(
    read: Callable[[str | None, int], Page[Item]], cursor: str | None, limit: int | None
) -> Page[Item] | tuple[Item, ...]:
    """The page that was asked for, or the whole list. Raises `Invalid` if the whole list is too long."""
    if cursor is not None or limit is not None:
        return read(cursor, 50 if limit is None else limit)
    items: tuple[Item, ...] = ()
    while len(items) < MOST:
        page = read(cursor, _PAGE)
        items, cursor = (*items, *page.items), page.next
        if cursor is None:
            return items
    raise Invalid(
        f"the list has more than {MOST:,} entries; read it in pages, with limit=200 and the cursor `next`"
    )
