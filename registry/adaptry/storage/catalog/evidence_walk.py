"""A walk through versions by the newest evidence of a task's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import aliased
from sqlmodel import col

from adaptry.core.query_terms import EvalName
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.key_lists import one_of
from adaptry.storage.catalog.rows import MetricRow
from adaptry.storage.catalog.search_places import Ordering, Place
from adaptry.storage.catalog.search_walks import Window
from adaptry.storage.catalog.value_conditions import IN_FORCE, is_measured


@dataclass(frozen=True, slots=True)
class ByEvidence:
    """Reads the values of all evidence in order, and leaves out what newer evidence of the version has
    replaced. `ranges` are conditions on the values.
    """

    name: EvalName
    ordering: Ordering
    ranges: tuple[ColumnElement[bool], ...] = ()

    def window(self, tx: Transaction, after: Place | None, count: int) -> Window:
        found: list[Any] = []  # rows
        for part in _parts(after, self.ordering.is_descending):
            found += self._read(tx, part, count - len(found))
            if len(found) >= count:
                break
        places = [
            Place(row.version_id, row.value, number=row.id)
            for row in found
            if not row.is_replaced and self.name.filter in (None, row.filter)
        ]
        last = found[-1] if len(found) >= count else None
        end = Place(last.version_id, last.value, number=last.id) if last else None
        return Window(places, len(found), end)

    def _read(self, tx: Transaction, part: Sequence[ColumnElement[bool]], count: int) -> Sequence[Any]:
        """(`Any`: rows.)"""
        newer = aliased(MetricRow)
        replaced = exists().where(
            col(newer.version_id) == col(MetricRow.version_id),
            col(newer.task) == self.name.task,
            col(newer.metric) == self.name.metric,
            col(newer.withdrawn_at).is_(None),
            col(newer.id) > col(MetricRow.id),
            *([] if self.name.filter is None else [col(newer.filter) == self.name.filter]),
        )
        columns = (col(MetricRow.version_id), col(MetricRow.value), col(MetricRow.id), col(MetricRow.filter))
        statement = select(*columns, replaced.label("is_replaced")).where(
            *IN_FORCE,
            col(MetricRow.task) == self.name.task,
            col(MetricRow.metric) == self.name.metric,
            *self.ranges,
            *part,
        )
        order = (col(MetricRow.value), col(MetricRow.version_id), col(MetricRow.id))
        directed = [one.desc() if self.ordering.is_descending else one.asc() for one in order]
        return tx.execute(statement.order_by(*directed).limit(count)).all()


def newest_values(tx: Transaction, name: EvalName, versions: Sequence[int]) -> dict[int, tuple[float, int]]:
    """The newest value of each version that has one, and the key of its row."""
    statement = (
        select(col(MetricRow.version_id), col(MetricRow.value), col(MetricRow.id))
        .where(one_of(tx, MetricRow.version_id, versions), *is_measured(name))
        .order_by(col(MetricRow.id))
    )
    return {row.version_id: (row.value, row.id) for row in tx.execute(statement)}


def _parts(after: Place | None, is_descending: bool) -> list[list[ColumnElement[bool]]]:
    """Conditions on the rows after a place, each a range of the index."""
    if after is None:
        return [[]]
    value, version, row = col(MetricRow.value), col(MetricRow.version_id), col(MetricRow.id)
    if is_descending:
        return [
            [value == after.value, version == after.key, row < after.number],
            [value == after.value, version < after.key],
            [value < after.value],
        ]
    return [
        [value == after.value, version == after.key, row > after.number],
        [value == after.value, version > after.key],
        [value > after.value],
    ]
