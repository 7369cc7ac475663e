"""Lists of the keys of versions, each read from one index.

The statement of every kind of list is built once: building one takes longer than running it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Select
from sqlmodel import col

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import PostingRow

Keys = Select[Any]
"""Selects one column of keys. (`Any`: SQLAlchemy 2.0 and 2.1 spell its type differently.)"""


@dataclass(frozen=True, slots=True)
class VersionList:
    """A statement that is built once, with the `values` of its parameters; or, if there are none, one that
    was built for this search. `is_newest_first`: a list of `postings`, which are read in that order.
    """

    statement: Keys
    values: Mapping[str, object] = field(default_factory=dict)
    is_newest_first: bool = False

    @property
    def keys(self) -> Keys:
        """The statement with its values."""
        return self.statement.params(**self.values) if self.values else self.statement

    def few(self, tx: Transaction, most: int) -> Sequence[int] | None:
        """All keys; None if there are `most` or more."""
        return None if self.reach(tx, most) is not None else self._run(tx, self.statement)

    def reach(self, tx: Transaction, count: int) -> int | None:
        """The `count`-th key, the newest first if the list is ordered; None if there are fewer."""
        build = _nth if self.values else _nth.__wrapped__  # only what is used again is kept
        found = self._run(tx, build(self.statement, count, self.is_newest_first))
        return found[0] if found else None

    def _run(self, tx: Transaction, statement: Keys) -> Sequence[int]:
        if self.values:
            return [row[0] for row in run_select(tx, statement, self.values)]
        return tx.execute(statement).scalars().all()


@dataclass(frozen=True, slots=True)
class AnyList:
    """The versions of several lists together."""

    lists: tuple[KeyList, ...]

    def few(self, tx: Transaction, most: int) -> Sequence[int] | None:
        keys: set[int] = set()
        for one in self.lists:
            found = one.few(tx, most)
            if found is None or len(keys := keys | set(found)) >= most:
                return None
        return list(keys)


@dataclass(frozen=True, slots=True)
class OneOfLists:
    """The shortest of several lists, each of which has all versions that are searched for."""

    lists: tuple[KeyList, ...]

    def few(self, tx: Transaction, most: int) -> Sequence[int] | None:
        for one in self.lists:
            if (found := one.few(tx, most)) is not None:
                return found
        return None


KeyList = VersionList | AnyList | OneOfLists


@lru_cache(maxsize=128)
def _nth(statement: Keys, count: int, is_newest_first: bool) -> Keys:
    if is_newest_first:
        statement = statement.order_by(col(PostingRow.version_id).desc())
    return statement.offset(count - 1).limit(1)
