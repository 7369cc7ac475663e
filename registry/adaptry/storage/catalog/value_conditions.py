"""Conditions on numbers and times: columns of versions, metrics, and values of evidence."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, false, func, or_, select, true
from sqlmodel import col

from adaptry.core.query_terms import DateTerm, EvalName, EvalTerm, MetricTerm, NumberTerm, Operator
from adaptry.storage.catalog.rows import AdapterRow, MetricRow, MetricSummaryRow, VersionRow
from adaptry.storage.catalog.search_condition import SearchCondition, any_of, has_row
from adaptry.storage.catalog.version_lists import Keys, VersionList

_LARGEST, _LARGEST_LONG = 2**31 - 1, 2**62
_COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {  # columns in, SQL out: typed by SQLAlchemy as Any
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBERS: dict[str, Any] = {  # columns of several types
    "rank": col(VersionRow.rank),
    "alpha": col(VersionRow.alpha),
    "size": col(VersionRow.size),
    "parameters": col(VersionRow.parameters),
    "version": col(VersionRow.number),
    "downloads": col(VersionRow.downloads),
    "findings": col(VersionRow.findings),
}
_LONG = frozenset({"size", "parameters"})
"""The 64-bit number columns."""
_FLOATS = frozenset({"alpha"})
_PICKS = {
    "newest": col(MetricSummaryRow.newest),
    "max": col(MetricSummaryRow.highest),
    "min": col(MetricSummaryRow.lowest),
}
_OF_VERSION = col(MetricRow.version_id) == col(VersionRow.id)
IN_FORCE = (col(MetricRow.task).is_not(None), col(MetricRow.withdrawn_at).is_(None))
_VISIBILITIES = ("public", "private")  # both, so that the index by visibility and time is used


def number(term: NumberTerm) -> SearchCondition:
    column, compare = _NUMBERS[term.field], _COMPARE[term.operator]
    value = term.value if term.field in _FLOATS else _whole(term)
    if value is None:
        return SearchCondition(column.is_not(None) if term.operator == "!=" else false())
    # `+ 0` prevents the planner from using this column's index if we chose another index to drive the query.
    return SearchCondition(
        column.is_not(None) & compare(column + 0, value),
        VersionList(_of_number(term.field, term.operator), {"value": value}),
    )


def number_range(term: NumberTerm) -> ColumnElement[bool] | None:
    """The same as a range of the column's index; None if nothing matches."""
    value = term.value if term.field in _FLOATS else _whole(term)
    return None if value is None else _COMPARE[term.operator](_NUMBERS[term.field], value)


def date(term: DateTerm) -> SearchCondition:
    if term.field == "created":
        return SearchCondition(
            _in_period(term, col(VersionRow.created_at)),
            VersionList(select(col(VersionRow.id)).where(_in_period(term, col(VersionRow.created_at)))),
        )
    holds = _in_period(term, col(AdapterRow.updated_at))
    of_adapter = col(AdapterRow.id) == col(VersionRow.adapter_id)
    keys = (
        select(col(VersionRow.id))
        .select_from(AdapterRow)
        .join(VersionRow, of_adapter)
        .where(col(AdapterRow.visibility).in_(_VISIBILITIES), col(AdapterRow.deleted_at).is_(None), holds)
    )
    return SearchCondition(has_row(AdapterRow, of_adapter & holds), VersionList(keys))


def created_range(term: DateTerm) -> ColumnElement[bool]:
    """Creation times as a range of their index."""
    return _in_period(term, col(VersionRow.created_at))


def _in_period(term: DateTerm, column: Any) -> ColumnElement[bool]:
    """(`Any`: a column of times.)"""
    since = true() if term.since is None else column >= _bound(term.since)
    until = true() if term.until is None else column < _bound(term.until)
    if term.is_outside:
        return or_(column < _bound(term.since), column >= _bound(term.until))
    return and_(since, until)


def _bound(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment


def metric(term: MetricTerm) -> SearchCondition:
    holds = (col(MetricSummaryRow.metric) == term.metric) & _COMPARE[term.operator](
        _PICKS[term.pick], term.value
    )
    return SearchCondition(
        has_row(MetricSummaryRow, (col(MetricSummaryRow.version_id) == col(VersionRow.id)) & holds),
        VersionList(_of_metric(term.pick, term.operator), {"metric": term.metric, "value": term.value}),
    )


def evaluation(term: EvalTerm) -> SearchCondition:
    """The newest evidence in force is compared; the list has older values too."""
    newest = (
        select(col(MetricRow.value))
        .where(_OF_VERSION, *is_measured(term.name))
        .order_by(col(MetricRow.id).desc())
        .limit(1)
        .correlate(VersionRow)
        .scalar_subquery()
    )
    compare = _COMPARE[term.operator]
    keys = select(col(MetricRow.version_id)).where(
        *is_measured(term.name), compare(col(MetricRow.value), term.value)
    )
    return SearchCondition(func.coalesce(compare(newest, term.value), false()), VersionList(keys))


def is_measured(name: EvalName) -> list[ColumnElement[bool]]:
    """The rows of evidence in force of a task's metric."""
    of_filter = [] if name.filter is None else [col(MetricRow.filter) == name.filter]
    return [*IN_FORCE, col(MetricRow.task) == name.task, col(MetricRow.metric) == name.metric, *of_filter]


def has_measured(name: EvalName) -> SearchCondition:
    return _has_rows(*is_measured(name))


def compared(operator: Operator, column: Any, value: float) -> ColumnElement[bool]:
    """(`Any`: a column of numbers.)"""
    found: ColumnElement[bool] = _COMPARE[operator](column, value)
    return found


def has_number(field: str) -> SearchCondition:
    column = _NUMBERS[field]
    return SearchCondition(
        column.is_not(None), VersionList(select(col(VersionRow.id)).where(column.is_not(None)))
    )


def has_metric(name: str) -> SearchCondition:
    of_name = [col(MetricSummaryRow.metric) == name] if name else []
    of_version = col(MetricSummaryRow.version_id) == col(VersionRow.id)
    return SearchCondition(
        has_row(MetricSummaryRow, and_(of_version, *of_name)),
        VersionList(select(col(MetricSummaryRow.version_id)).where(*of_name)),
    )


def has_evaluation(name: str) -> SearchCondition:
    """`name` is a task, or a task and a metric (and maybe a filter); without it, any evidence of a task."""
    if not name:
        return _has_rows(*IN_FORCE)
    named, _, filter = name.partition(",")
    task, _, metric = named.rpartition(".")
    of_filter = [col(MetricRow.filter) == filter] if filter else []
    of_metric = [col(MetricRow.task) == task, col(MetricRow.metric) == metric]
    return any_of(
        [_has_rows(*IN_FORCE, *of_metric, *of_filter), _has_rows(*IN_FORCE, col(MetricRow.task) == name)]
    )


def _has_rows(*wanted: ColumnElement[bool]) -> SearchCondition:
    return SearchCondition(
        has_row(MetricRow, and_(_OF_VERSION, *wanted)),
        VersionList(select(col(MetricRow.version_id)).where(*wanted)),
    )


def _whole(term: NumberTerm) -> int | None:
    """The whole number to compare an integer column with; None if no whole number can be equal.

    PostgreSQL uses an index only for numbers of the column's own kind.
    """
    value, operator = term.value, term.operator
    largest = _LARGEST_LONG if term.field in _LONG else _LARGEST
    if operator in ("=", "!=") and not (value.is_integer() and abs(value) <= largest):
        return None
    rounded = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    return max(-largest, min(largest, rounded))


@cache
def _of_number(field: str, operator: Operator) -> Keys:
    return select(col(VersionRow.id)).where(_COMPARE[operator](_NUMBERS[field], bindparam("value")))


@cache
def _of_metric(pick: str, operator: Operator) -> Keys:
    return select(col(MetricSummaryRow.version_id)).where(
        col(MetricSummaryRow.metric) == bindparam("metric"),
        _COMPARE[operator](_PICKS[pick], bindparam("value")),
    )
