"""An index scan of versions in the order of their adapters: by name, or by the last change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.adapter_pages import AdapterPosition, Listing, entries
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.index_scans import Window
from adaptry.storage.catalog.predicates import one_of, select_where
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow, VersionRow
from adaptry.storage.catalog.search_positions import Ordering, SearchPosition
from adaptry.storage.catalog.version_info import table_of

_MAX_ADAPTERS = 200
_A, _V = table_of(AdapterRow), table_of(VersionRow)
_NUMBERS = select(_V.c.id, _V.c.adapter_id, _V.c.number)
_COUNT = bindparam("count", type_=_V.c.id.type)
_OF_ADAPTER = (
    select(_V.c.id, _V.c.number).join(_A, _A.c.id == _V.c.adapter_id).where(_A.c.name == bindparam("name"))
)
_NEXT_VERSIONS = {
    False: _OF_ADAPTER.where(_V.c.number < bindparam("number")).order_by(_V.c.number.desc()).limit(_COUNT),
    True: _OF_ADAPTER.where(_V.c.number > bindparam("number")).order_by(_V.c.number).limit(_COUNT),
}
_LAST = 2**31 - 1
_LAST_NAME = "~"  # after every adapter's name


@dataclass(frozen=True, slots=True)
class ByAdapter:
    """Follows a listing of the visible adapters; the versions of each are newest first.

    In a listing by time, only the adapters from `since` to before `until` are read.
    """

    scope: ReadScope
    listing: Listing
    ordering: Ordering
    since: datetime | None = None
    until: datetime | None = None

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        if after is not None:
            rest = self._rest(tx, after, count)
            if rest:
                return Window(rest, len(rest), rest[-1])
        many = min(count, _MAX_ADAPTERS)
        adapters = self._adapters(tx, after, many)
        taken = _fitting(adapters, count)
        if not taken:
            return Window((), 1, None)
        last = taken[-1]
        end = self._position(last, 0, _LAST if self.ordering.reverse else 0)
        if taken[0].version_count > count:
            start = self._position(last, 0, 0 if self.ordering.reverse else _LAST)
            found = self._rest(tx, start, count)
            return Window(found, count, found[-1] if found else end)
        found = self._versions(tx, taken)
        is_end = len(taken) == len(adapters) < many
        return Window(found, len(found) + len(taken), None if is_end else end)

    def _adapters(self, tx: Reads, after: SearchPosition | None, count: int) -> Sequence[Any]:
        """The next adapters in the period. (`Any`: rows.)"""
        before = self._start()
        if after is not None:
            value = after.name if self.listing.sort == "name" else after.value
            before = AdapterPosition(value, after.name)
        found = entries(tx, self.scope, self.listing, before, count)
        return [
            row
            for row in found
            if (self.since is None or row.value >= self.since)
            and (self.until is None or row.value < self.until)
        ]

    def _start(self) -> AdapterPosition | None:
        """The position before the first adapter of the period."""
        if self.listing.is_descending and self.until is not None:
            return AdapterPosition(self.until, _LAST_NAME)
        if not self.listing.is_descending and self.since is not None:
            return AdapterPosition(self.since - timedelta(microseconds=1), "")
        return None

    def _rest(self, tx: Reads, after: SearchPosition, count: int) -> list[SearchPosition]:
        """Further versions of the adapter at a position."""
        parameters = {"name": after.name, "number": after.number, "count": count}
        rows = run_select(tx, _NEXT_VERSIONS[self.ordering.reverse], parameters)
        return [SearchPosition(row.id, after.value, after.name, row.number) for row in rows]

    def _versions(self, tx: Reads, adapters: Sequence[Any]) -> list[SearchPosition]:
        """All versions of adapters. (`Any`: rows.)"""
        by_key = {row.id: row for row in adapters}
        rows = select_where(tx, _NUMBERS, [one_of(tx, _V.c.adapter_id, list(by_key))])
        return self.ordering.sorted(
            self._position(by_key[row.adapter_id], row.id, row.number) for row in rows
        )

    def _position(self, adapter: Any, key: int, number: int) -> SearchPosition:
        """(`Any`: a row.)"""
        value = None if self.listing.sort == "name" else adapter.value
        return SearchPosition(key, value, adapter.name, number)


def _fitting(adapters: Sequence[Any], count: int) -> Sequence[Any]:
    """The first adapters, as many as have `count` versions together, but one at least. (`Any`: rows.)"""
    versions = 0
    for at, adapter in enumerate(adapters):
        versions += adapter.version_count
        if versions > count:
            return adapters[: max(at, 1)]
    return adapters
