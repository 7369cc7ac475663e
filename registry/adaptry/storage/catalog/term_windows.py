"""Versions that have one of several terms, newest first.

The lists of the terms are each ordered, but not all together. So they are read in windows, ranges of keys,
which are sized by how dense the terms are among the newest versions, and grow while little is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlmodel import col

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import PostingRow, VersionRow

_SAMPLE = 2000  # newest keys among which the terms are counted
_DENSE = _SAMPLE // 2
_GROWTH = 8
_MOST = 4000  # expected number of versions in one window
_KEY, _LISTED = col(VersionRow.id), col(PostingRow.version_id)


@dataclass(frozen=True, slots=True)
class TermWindows:
    """The versions that have one of `terms`. Of the `_SAMPLE` newest keys up to
    `newest`, `hits` have such a term.
    """

    terms: tuple[int, ...]
    newest: int
    hits: int

    def reach(self, count: int) -> int:
        """An estimate of the key of the `count`-th newest version."""
        return self.newest - count * _SAMPLE // max(self.hits, 1)

    def first(self, tx: Transaction, before: int | None, count: int) -> Sequence[int]:
        """The keys of the newest `count` versions, of those before a key if one is given."""
        high = self.newest + 1 if before is None else before
        width, widest = self._width(2 * count), self._width(_MOST)
        found: list[int] = []
        while high > 0 and len(found) < count:
            low = high - width
            new = self._window(tx, low, high, count - len(found))
            found += new
            missing = count - len(found)
            growth = min(_GROWTH, 1 + missing // len(new)) if new else _GROWTH
            high, width = low, max(width, min(width * growth, widest))
        return found

    def _width(self, versions: int) -> int:
        """The width of a window in which so many versions are expected."""
        return versions * _SAMPLE // max(self.hits, 1)

    def _window(self, tx: Transaction, low: int, high: int, count: int) -> Sequence[int]:
        listed = select(_LISTED).where(
            col(PostingRow.term_id).in_(self.terms), low <= _LISTED, high > _LISTED
        )
        return tx.execute(listed.distinct().order_by(_LISTED.desc()).limit(count)).scalars().all()


def term_windows(tx: Transaction, terms: tuple[int, ...]) -> TermWindows | None:
    """None if so many versions have one of the terms that all may be read."""
    newest = tx.execute(select(func.max(_KEY))).scalar() or 0
    sample = select(_LISTED).where(col(PostingRow.term_id).in_(terms), newest - _SAMPLE < _LISTED)
    hits = tx.execute(select(func.count()).select_from(sample.distinct().subquery())).scalar_one()
    return TermWindows(terms, newest, hits) if hits < _DENSE else None
