"""An index scan of versions by the newest evidence of a task's metric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, exists, select
from sqlalchemy.orm import aliased
from sqlmodel import col

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.query_terms import EvalName
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.index_scans import Window, beyond, equals
from adaptry.storage.catalog.predicates import Order, Predicate, one_of, predicate, select_where
from adaptry.storage.catalog.rows import MetricRow
from adaptry.storage.catalog.search_positions import Ordering, SearchPosition
from adaptry.storage.catalog.value_conditions import is_measured, texts_of
from adaptry.storage.catalog.version_info import table_of

_M = table_of(MetricRow).c
_VALUES = select(_M.version_id, _M.value, _M.id)


@dataclass(frozen=True, slots=True)
class ByEvidence:
    """Reads the values of all evidence in order, and leaves out what newer evidence of the version has
    replaced. `ranges` are conditions on the values.
    """

    name: EvalName
    ordering: Ordering
    ranges: tuple[Predicate, ...] = ()

    def window(self, tx: Reads, after: SearchPosition | None, count: int) -> Window:
        found: list[Any] = []  # rows
        for part in _parts(after, self.ordering.is_descending):
            found += self._read(tx, part, count - len(found))
            if len(found) >= count:
                break
        positions = [
            SearchPosition(row.version_id, row.value, number=row.id)
            for row in found
            if not row.is_replaced and self.name.filter in (None, row.filter)
        ]
        last = found[-1] if len(found) >= count else None
        end = SearchPosition(last.version_id, last.value, number=last.id) if last else None
        return Window(positions, len(found), end)

    def _read(self, tx: Reads, part: Sequence[Predicate], count: int) -> Sequence[Any]:
        """(`Any`: rows.)"""
        name = self.name
        of_metric = predicate(is_measured, values=[name.task, name.metric])
        named = {"task": name.task, "metric": name.metric}
        of_filter = {} if name.filter is None else {"filter": name.filter}
        order = Order((_M.value, _M.version_id, _M.id), self.ordering.is_descending)
        selection = _with_replaced(bool(of_filter))
        where = [of_metric, *self.ranges, *part]
        return select_where(tx, selection, where, {**named, **of_filter, "count": count}, order)


@lru_cache
def _with_replaced(has_filter: bool) -> Select[Any]:
    """Evidence, and whether newer evidence of the same version replaces it. (`Any`: typed by its columns.)"""
    newer = aliased(MetricRow)
    replaced = exists().where(
        col(newer.version_id) == _M.version_id,
        col(newer.task) == bindparam("task"),
        col(newer.metric) == bindparam("metric"),
        col(newer.withdrawn_at).is_(None),
        col(newer.id) > _M.id,
        *([col(newer.filter) == bindparam("filter")] if has_filter else []),
    )
    return select(_M.version_id, _M.value, _M.id, _M.filter, replaced.label("is_replaced"))


def newest_values(tx: Reads, name: EvalName, versions: Sequence[int]) -> dict[int, tuple[float, int]]:
    """The newest value of each version that has one, and the key of its row."""
    where = [one_of(tx, _M.version_id, versions), predicate(is_measured, values=texts_of(name))]
    rows = sorted(select_where(tx, _VALUES, where), key=lambda row: row.id)
    return {row.version_id: (row.value, row.id) for row in rows}


def _parts(after: SearchPosition | None, is_descending: bool) -> list[list[Predicate]]:
    """Conditions on the rows after a position, each a range of the index."""
    if after is None:
        return [[]]
    of_value = predicate(equals, _M.value, values=[after.value])
    of_version = predicate(equals, _M.version_id, values=[after.key])
    return [
        [of_value, of_version, beyond(_M.id, after.number, is_descending)],
        [of_value, beyond(_M.version_id, after.key, is_descending)],
        [beyond(_M.value, after.value, is_descending)],
    ]
