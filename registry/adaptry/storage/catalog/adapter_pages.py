"""Pages of adapters, in every order and for every reader; the cost does not grow with the number of adapters.

The adapters that a reader sees form spans: the public adapters, and the private ones of each namespace. An
index has each span in the order of the listing. A page merges the first entries of all spans. For a reader of
very many namespaces, one index of all adapters is read instead, since a good part of it is visible. For a
grant on names with a prefix, all its adapters are sorted, unless the order is by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, select, union
from sqlmodel import col

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterInfo, Page
from adaptry.registry.sort_keys import AdapterSortKey
from adaptry.storage.catalog import adapters, cursors
from adaptry.storage.catalog.access import ReadScope, is_among
from adaptry.storage.catalog.adapter_rows import about_names
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow
from adaptry.storage.catalog.rows.adapters import EXISTS
from adaptry.storage.catalog.shown_adapters import page_by_name
from adaptry.storage.catalog.version_info import table_of

_A = table_of(AdapterRow)
_MAX_SPANS = 50
_COLUMNS = {
    "name": _A.c.name,
    "updated": _A.c.updated_at,
    "downloads": _A.c.downloads,
    "versions": _A.c.version_count,
}
_COUNT = bindparam("count", type_=_A.c.id.type)

Entries = Select[Any]
"""Selects keys of adapters with their name and the value of the order. (`Any`: typed by its columns.)"""


@dataclass(frozen=True, slots=True)
class Listing:
    """The adapters of a namespace, or of all namespaces, in an order; with `reverse`, in the reverse
    order.
    """

    namespace: str | None = None
    sort: AdapterSortKey = "name"
    reverse: bool = False

    @property
    def about(self) -> str:
        """Identifies the listing in its cursors."""
        order = "" if self.sort == "name" and not self.reverse else f" by {self.sort} {self.reverse:d}"
        return about_names(self.namespace) + order

    @property
    def is_descending(self) -> bool:
        """Whether its values descend; names with equal values are in the other direction."""
        return (self.sort != "name") is not self.reverse


@dataclass(frozen=True, slots=True)
class AdapterPosition:
    """The position of an adapter in a listing."""

    value: object
    name: str


def page(tx: Reads, scope: ReadScope, listing: Listing, cursor: str | None, limit: int) -> Page[AdapterInfo]:
    """A page of the listing. Raises `Invalid` for a cursor of another listing."""
    if scope.namespaces is None and listing.sort == "name" and not listing.reverse:
        return page_by_name(tx, listing.namespace, cursor, limit)
    after = None if cursor is None else _decode(listing, cursor)
    found = entries(tx, scope, listing, after, limit + 1)
    shown = found[:limit]
    last = AdapterPosition(shown[-1].value, shown[-1].name) if len(found) > limit else None
    return Page[AdapterInfo](
        items=adapters.infos(tx, [row.id for row in shown]), next=last and _encode(listing, last)
    )


def entries(
    tx: Reads, scope: ReadScope, listing: Listing, after: AdapterPosition | None, count: int
) -> Sequence[Any]:
    """The next visible adapters after a position: their keys, names, values of the order, and numbers of
    versions. (`Any`: rows.)
    """
    parameters: dict[str, object] = {"count": count}
    if after is not None:
        parameters |= {"after_value": after.value, "after_name": after.name}
    return run_select(tx, _entries(scope, listing, _MAX_SPANS, is_first=after is None), parameters)


@lru_cache(maxsize=128)
def _entries(scope: ReadScope, listing: Listing, maximum: int, *, is_first: bool) -> Any:
    """The statement, of at most `maximum` spans. (`Any`: one selection or several.)"""
    spans = list(_spans(scope, listing))
    if len(spans) > maximum:
        spans = list(_all_visible(scope, listing))
    parts = [part for span in spans for part in ([span] if is_first else _after(listing, span))]
    return _first(listing, [_part(listing, part) for part in parts])


def _spans(scope: ReadScope, listing: Listing) -> Iterator[ColumnElement[bool]]:
    """Conditions that together hold for exactly the visible adapters."""
    if listing.sort == "name":
        yield from _spans_of_names(scope, listing.namespace)
        return
    public, private = _A.c.visibility == "public", _A.c.visibility == "private"
    namespace = listing.namespace
    within = [] if namespace is None else [_A.c.namespace == namespace]
    yield and_(*within, public)
    if scope.namespaces is None or namespace in scope.namespaces:
        yield and_(*within, private)
        return
    if namespace is None:
        yield from (and_(_A.c.namespace == one, private) for one in scope.namespaces)
    # Not `private`: a planner might then read all private adapters in order, instead of these names.
    yield from (and_(names, _A.c.visibility != "public") for names in _named(scope, namespace))


def _spans_of_names(scope: ReadScope, namespace: str | None) -> Iterator[ColumnElement[bool]]:
    """The spans of names that grants list, as ranges that may overlap the public adapters."""
    within = [] if namespace is None else [_of_namespace(namespace)]
    if scope.namespaces is None or namespace in scope.namespaces:
        yield and_(EXISTS, *within)
        return
    yield and_(_A.c.visibility == "public", *within)
    if namespace is None:
        yield from map(_of_namespace, scope.namespaces)
    yield from _named(scope, namespace)


def _named(scope: ReadScope, namespace: str | None) -> Iterator[ColumnElement[bool]]:
    """The names outside the readable namespaces."""
    return (
        is_among(col(AdapterRow.name), names)
        for names in scope.names
        if namespace is None or names.startswith(f"{namespace}/")
    )


def _all_visible(scope: ReadScope, listing: Listing) -> Iterator[ColumnElement[bool]]:
    """The visible adapters as parts of two indexes of all adapters."""
    seen = scope.adapter_condition()
    assert seen is not None and listing.namespace is None
    if listing.sort == "name":
        yield seen
        return
    yield from (and_(_A.c.visibility == one, seen) for one in ("public", "private"))


def _of_namespace(namespace: str) -> ColumnElement[bool]:
    return is_among(col(AdapterRow.name), f"{namespace}/*")


def _after(listing: Listing, span: ColumnElement[bool]) -> Iterable[ColumnElement[bool]]:
    """The entries of a span after a position: with the same value, and with later ones. Each is a range of an
    index.
    """
    value, name = _COLUMNS[listing.sort], bindparam("after_name", type_=_A.c.name.type)
    if listing.sort == "name":
        return [and_(span, value < name if listing.is_descending else value > name)]
    limit = bindparam("after_value", type_=value.type)
    later, beyond = (
        (_A.c.name > name, value < limit) if listing.is_descending else (_A.c.name < name, value > limit)
    )
    return [and_(span, value == limit, later), and_(span, beyond)]


def _part(listing: Listing, condition: ColumnElement[bool]) -> Entries:
    value = _COLUMNS[listing.sort]
    order = (
        (value.desc() if listing.is_descending else value.asc(),)
        if listing.sort == "name"
        else (value.desc(), _A.c.name)
        if listing.is_descending
        else (value.asc(), _A.c.name.desc())
    )
    return (
        select(_A.c.id, _A.c.name, value.label("value"), _A.c.version_count)
        .where(EXISTS, condition)
        .order_by(*order)
        .limit(_COUNT)
    )


def _first(listing: Listing, parts: Sequence[Entries]) -> Any:
    """The first entries of all parts. (`Any`: one selection or several.)"""
    if len(parts) == 1:
        return parts[0]
    # Not `union_all`: the names of two grants may overlap, and in name order the public adapters do.
    every = union(*(select(part.subquery()) for part in parts)).subquery()
    value, name = every.c.value, every.c.name
    order = (value.desc(), name) if listing.is_descending else (value, name.desc())
    return select(every).order_by(*order).limit(_COUNT)


def _encode(listing: Listing, position: AdapterPosition) -> str:
    if listing.sort == "name":
        return cursors.encode(position.name, listing.about)
    value = position.value.isoformat() if isinstance(position.value, datetime) else position.value
    return cursors.encode(f"{value} {position.name}", listing.about)


def _decode(listing: Listing, cursor: str) -> AdapterPosition:
    text = cursors.decode(cursor, listing.about)
    if listing.sort == "name":
        return AdapterPosition(text, text)
    value, _, name = text.partition(" ")
    try:
        AdapterName.parse(name)
        if listing.sort == "updated":
            return AdapterPosition(datetime.fromisoformat(value).astimezone(UTC), name)
        if not (value.isascii() and value.isdigit() and int(value) <= cursors.INTEGER):
            raise ValueError(value)
        return AdapterPosition(int(value), name)
    except (Invalid, ValueError, OverflowError):
        raise cursors.foreign() from None
