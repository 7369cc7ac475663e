"""Versions that have one of several terms, newest first.

The lists of the terms are each ordered, but not all together. So they are read in windows, ranges of keys,
which are sized by how dense the terms are among the newest versions, and grow while little is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import ColumnElement, and_, bindparam, func, select
from sqlmodel import col

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.predicates import Order, Selection, Value, keys_where, predicate
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import PostingRow, VersionRow
from adaptry.storage.catalog.search_condition import one_of_terms
from adaptry.storage.catalog.version_info import table_of

_SAMPLE = 2000  # newest keys among which the terms are counted
_DENSE = _SAMPLE // 2
_GROWTH_FACTOR = 8
_TARGET_SIZE = 4000  # expected number of versions in one window
NEWEST_KEY = select(func.max(col(VersionRow.id)).label("key"))
_LISTED = table_of(PostingRow).c.version_id
_DISTINCT = select(_LISTED).distinct()
_NEWEST_FIRST = Order((_LISTED,), is_descending=True)


@dataclass(frozen=True, slots=True)
class TermWindows:
    """The versions that have one of `terms`. Among the `_SAMPLE` newest keys up to `newest`, `hits` have such
    a term.
    """

    terms: tuple[int, ...]
    newest: int
    hits: int

    def nth_key(self, count: int) -> int:
        """An estimate of the key of the `count`-th newest version."""
        return self.newest - count * _SAMPLE // max(self.hits, 1)

    def first(self, tx: Reads, before: int | None, count: int) -> Sequence[int]:
        """The keys of the newest `count` versions, of those before a key if one is given."""
        high = self.newest + 1 if before is None else before
        width, widest = self._width(2 * count), self._width(_TARGET_SIZE)
        found: list[int] = []
        while high > 0 and len(found) < count:
            low = high - width
            new = self._window(tx, low, high, count - len(found))
            found += new
            missing = count - len(found)
            growth = min(_GROWTH_FACTOR, 1 + missing // len(new)) if new else _GROWTH_FACTOR
            high, width = low, max(width, min(width * growth, widest))
        return found

    def _width(self, versions: int) -> int:
        """The width of a window in which `count` versions are expected."""
        return versions * _SAMPLE // max(self.hits, 1)

    def _window(self, tx: Reads, low: int, high: int, count: int) -> Sequence[int]:
        within = predicate(_is_within, values=[low, high, *self.terms])
        return keys_where(tx, _DISTINCT, [within], {"count": count}, _NEWEST_FIRST)


def term_windows(tx: Reads, terms: tuple[int, ...]) -> TermWindows | None:
    """The windows of these terms; None if so many versions have one of the terms that it is as good to read
    all versions.
    """
    newest = newest_key(tx)
    (row,) = run_select(
        tx,
        _sample(len(terms)),
        {f"term_{number}": term for number, term in enumerate(terms)} | {"oldest": newest - _SAMPLE},
    )
    return TermWindows(terms, newest, row.hits) if row.hits < _DENSE else None


def newest_key(tx: Reads) -> int:
    """The key of the newest version; 0 without versions."""
    return run_select(tx, NEWEST_KEY, {})[0].key or 0


def _is_within(low: Value, high: Value, *terms: Value) -> ColumnElement[bool]:
    return and_(one_of_terms(*terms), low <= _LISTED, high > _LISTED)


@lru_cache(maxsize=64)
def _sample(terms: int) -> Selection:
    """The number of versions after the key `oldest` that have one of the terms."""
    parameters: list[Value] = [bindparam(f"term_{number}") for number in range(terms)]
    sample = select(_LISTED).where(one_of_terms(*parameters), bindparam("oldest") < _LISTED)
    return select(func.count().label("hits")).select_from(sample.distinct().subquery())
