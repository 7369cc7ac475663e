"""Lists of the keys of versions, each read from one index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import ColumnElement

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.predicates import (
    Order,
    Predicate,
    Selection,
    in_subquery,
    is_postgres,
    keys_where,
    one_of,
    select_where,
)
from adaptry.storage.catalog.rows import PostingRow
from adaptry.storage.catalog.version_info import table_of

_NEWEST_FIRST = Order((table_of(PostingRow).c.version_id,), is_descending=True)


@dataclass(frozen=True, slots=True)
class VersionList:
    """The keys in a selection for which a predicate holds. `is_newest_first` is true for a list of
    `postings`, which are read in that order.
    """

    selection: Selection
    where: Predicate
    is_newest_first: bool = False

    def few(self, tx: Reads, maximum: int) -> Sequence[int] | None:
        """All keys; None if there are `maximum` or more."""
        keys = keys_where(tx, _first(self.selection, maximum), [self.where])
        return keys if len(keys) < maximum else None

    def nth_key(self, tx: Reads, count: int) -> int | None:
        """The `count`-th key, the newest first if the list is ordered; None if there are fewer."""
        selection = _nth(self.selection, count)
        if self.is_newest_first:
            found = select_where(tx, selection, [self.where], {"count": 1}, _NEWEST_FIRST)
        else:
            found = select_where(tx, selection, [self.where])
        return found[0][0] if found else None


@dataclass(frozen=True, slots=True)
class AnyList:
    """The versions of several lists together."""

    lists: tuple[KeyList, ...]

    def few(self, tx: Reads, maximum: int) -> Sequence[int] | None:
        keys: set[int] = set()
        for one in self.lists:
            found = one.few(tx, maximum)
            if found is None or len(keys := keys | set(found)) >= maximum:
                return None
        return list(keys)


@dataclass(frozen=True, slots=True)
class OneOfLists:
    """The shortest of several lists, each of which has all versions that are searched for."""

    lists: tuple[KeyList, ...]

    def few(self, tx: Reads, maximum: int) -> Sequence[int] | None:
        for one in self.lists:
            if (found := one.few(tx, maximum)) is not None:
                return found
        return None


KeyList = VersionList | AnyList | OneOfLists


def is_in_few(tx: Reads, listed: KeyList, column: ColumnElement[int], maximum: int) -> Predicate | None:
    """The predicate that `column` has a key of the list; None if the list has `maximum` or more keys.

    On SQLite, the statement with the predicate reads the list. On PostgreSQL, the predicate contains the
    keys, since that statement would be planned for a list of average length.
    """
    match listed:
        case VersionList(selection, where) if not is_postgres(tx):
            return in_subquery(column, selection, where) if listed.nth_key(tx, maximum) is None else None
        case OneOfLists(lists):
            found = (is_in_few(tx, one, column, maximum) for one in lists)
            return next((one for one in found if one is not None), None)
    keys = listed.few(tx, maximum)
    return None if keys is None else one_of(tx, column, keys)


@lru_cache(maxsize=64)
def _first(selection: Selection, count: int) -> Selection:
    return selection.limit(count)


@lru_cache(maxsize=64)
def _nth(selection: Selection, count: int) -> Selection:
    return selection.offset(count - 1).limit(1)
