"""Reads all pages of a listing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptry.registry.records import Item, Page


def iter_items(page_at: Callable[[str | None], Page[Item]]) -> Iterator[Item]:
    """The items of all pages; `page_at` gets the cursor of each, None for the first."""
    cursor: str | None = None
    while True:
        page = page_at(cursor)
        yield from page.items
        cursor = page.next
        if cursor is None:
            return
