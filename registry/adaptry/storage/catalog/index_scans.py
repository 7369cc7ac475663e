"""Walks through versions in the order of a search, window by window.

A scan reads an index of its order, so that each window costs the same wherever it is, in a registry of any
size. It gives candidates; `search` tests them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, bindparam, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.query_times import FIRST
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.predicates import (
    Order,
    Predicate,
    Value,
    keys_of,
    one_of,
    predicate,
    select_where,
)
from adaptry.storage.catalog.rows import MetricSummaryRow, PostingRow, VersionRow
from adaptry.storage.catalog.search_positions import Ordering, SearchPosition
from adaptry.storage.catalog.term_windows import TermWindows
from adaptry.storage.catalog.value_conditions import ALL
from adaptry.storage.catalog.version_info import table_of

_KEY, _CREATED_AT = table_of(VersionRow).c.id, table_of(VersionRow).c.created_at
_POSTINGS, _SUMMARIES = table_of(PostingRow), table_of(MetricSummaryRow)
_CREATED = select(_CREATED_AT)
_SUMMARY = select(_SUMMARIES.c.version_id, _SUMMARIES.c.newest)


@dataclass(frozen=True, slots=True)
class Window:
    """The candidates of a part of a scan, the number of rows read for them, and the position at which the
    scan continues; None at its end.
    """

    positions: Sequence[SearchPosition]
    read: int
    next: SearchPosition | None


class IndexScan(Protocol):
    """Reads candidates in an order."""

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        """The next candidates after a position, about `count`."""
        ...


def window_of(positions: Sequence[SearchPosition], count: int) -> Window:
    """The window of a statement that reads at most `count` positions."""
    return Window(positions, len(positions), positions[-1] if len(positions) >= count else None)


@dataclass(frozen=True, slots=True)
class KnownVersions:
    """Versions that are known one by one."""

    positions: Sequence[SearchPosition]
    ordering: Ordering

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        return window_of(self.ordering.after(self.positions, after)[:count], count)


@dataclass(frozen=True, slots=True)
class ByKey:
    """All versions, or those with a term of the search index, by age."""

    term: int | None = None
    oldest_first: bool = False

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        start = after.key if after else 0 if self.oldest_first else 2**31 - 1
        parameters: dict[str, object] = {"start": start, "count": count}
        if self.term is not None:
            parameters["term"] = self.term
        statement = _by_key(self.term is not None, self.oldest_first, after is None)
        return window_of([SearchPosition(key) for key in keys_of(tx, statement, parameters)], count)


@lru_cache
def _by_key(has_term: bool, oldest_first: bool, is_first: bool) -> Select[Any]:
    """(`Any`: one column of keys.)"""
    key = _POSTINGS.c.version_id if has_term else _KEY
    statement = select(key) if not has_term else select(key).where(_POSTINGS.c.term_id == bindparam("term"))
    start = bindparam("start", type_=_KEY.type)
    compared = key > start if oldest_first else key <= start if is_first else key < start
    order = key.asc() if oldest_first else key.desc()
    return statement.where(compared).order_by(order).limit(bindparam("count", type_=_KEY.type))


@dataclass(frozen=True, slots=True)
class ByTerms:
    """Versions with one of several terms, newest first."""

    windows: TermWindows

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        keys = self.windows.first(tx, after.key if after else None, count)
        return window_of([SearchPosition(key) for key in keys], count)


@dataclass(frozen=True, slots=True)
class ByColumn:
    """Versions by a column of theirs; those without a value come last, by age. `ranges` are conditions on
    the column itself.
    """

    column: ColumnElement[Any]
    ordering: Ordering
    ranges: tuple[Predicate, ...] = ()

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        is_descending = self.ordering.is_descending
        found: list[SearchPosition] = []
        if after is None or after.value is not None:
            has_value = predicate(_has_value, self.column)
            for part in parts(self.column, _KEY, after, is_descending):
                found += self._read(tx, [has_value, *self.ranges, *part], count - len(found))
                if len(found) >= count:
                    return window_of(found, count)
            after = None
        if self.ranges:  # versions without a value are in no range
            return Window(found, len(found), None)
        after_key = [] if after is None else [beyond(_KEY, after.key, is_descending)]
        has_none = predicate(_has_no_value, self.column)
        found += self._read(tx, [has_none, *after_key], count - len(found))
        return window_of(found, count)

    def _read(self, tx: Reads, where: Sequence[Predicate], count: int) -> list[SearchPosition]:
        order = Order((self.column, _KEY), self.ordering.is_descending)
        rows = select_where(tx, _with_column(self.column), where, {"count": count}, order)
        return [SearchPosition(row.id, row.value) for row in rows]


@lru_cache
def _with_column(column: ColumnElement[Any]) -> Select[Any]:
    """(`Any`: of several types.)"""
    return select(_KEY, column.label("value"))


def _has_value(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.is_not(None)


def _has_no_value(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.is_(None)


@dataclass(frozen=True, slots=True)
class ByCreation:
    """Versions that were created in periods, by age, as `ByKey` gives them."""

    ordering: Ordering
    ranges: tuple[Predicate, ...]

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        if after is not None:
            until = predicate(_is_at_most, _KEY, values=[after.key])
            older = select_where(tx, _CREATED, [until], {"count": 1}, Order((_KEY,), is_descending=True))
            after = SearchPosition(after.key, older[0].created_at if older else FIRST)
        scan = ByColumn(_CREATED_AT, self.ordering, self.ranges)
        return window_of([SearchPosition(one.key) for one in scan.window(tx, after, count).positions], count)


def _is_at_most(column: ColumnElement[Any], value: Value) -> ColumnElement[bool]:
    return column <= value


@dataclass(frozen=True, slots=True)
class ByMetric:
    """Versions by the newest value of a logged metric. `ranges` are conditions on it."""

    metric: str
    ordering: Ordering
    ranges: tuple[Predicate, ...] = ()

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        value, key = _SUMMARIES.c.newest, _SUMMARIES.c.version_id
        order = Order((value, key), self.ordering.is_descending)
        of_metric = predicate(equals, _SUMMARIES.c.metric, values=[self.metric])
        found: list[SearchPosition] = []
        for part in parts(value, key, after, self.ordering.is_descending):
            where = [of_metric, *self.ranges, *part]
            rows = select_where(tx, _SUMMARY, where, {"count": count - len(found)}, order)
            found += [SearchPosition(row.version_id, row.newest) for row in rows]
            if len(found) >= count:
                break
        return window_of(found, count)


@dataclass(frozen=True, slots=True)
class ThenOthers:
    """Versions with a value in their order, and then those without, by age. `has_value` is the condition
    that separates them; if it is None, those without are left out.
    """

    valued: IndexScan
    has_value: Predicate | None
    ordering: Ordering

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        if after is None or after.value is not None:
            window = self.valued.window(tx, after, count)
            if window.next is not None or self.has_value is None:
                return window
            return Window(window.positions, window.read, self._before_others())
        if self.has_value is None:
            return Window((), 0, None)
        window = ByKey(oldest_first=self.ordering.reverse).window(tx, after, count)
        of_window = one_of(tx, _KEY, [position.key for position in window.positions])
        with_value = {row.id for row in select_where(tx, ALL, [of_window, self.has_value])}
        others = [position for position in window.positions if position.key not in with_value]
        return Window(others, window.read, window.next)

    def _before_others(self) -> SearchPosition:
        return SearchPosition(0 if self.ordering.reverse else 2**31 - 1)


def parts(
    value: ColumnElement[Any], key: ColumnElement[int], after: SearchPosition | None, is_descending: bool
) -> list[list[Predicate]]:
    """Conditions on the versions after a position: those with the same value, and those beyond. Each is a
    range of an index. (`Any`: a column.)
    """
    if after is None:
        return [[]]
    same = [predicate(equals, value, values=[after.value]), beyond(key, after.key, is_descending)]
    return [same, [beyond(value, after.value, is_descending)]]


def beyond(column: ColumnElement[Any], value: object, is_descending: bool) -> Predicate:
    """Whether a column comes after a value. (`Any`: of several types.)"""
    return predicate(_is_below if is_descending else _is_above, column, values=[value])


def equals(column: ColumnElement[Any], value: Value) -> ColumnElement[bool]:
    return column == value


def _is_below(column: ColumnElement[Any], value: Value) -> ColumnElement[bool]:
    return column < value


def _is_above(column: ColumnElement[Any], value: Value) -> ColumnElement[bool]:
    return column > value
