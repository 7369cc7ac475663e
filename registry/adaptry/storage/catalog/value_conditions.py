"""Conditions on numbers and times: columns of versions, metrics, and values of evidence."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, or_, select, true
from sqlmodel import col

from adaptry.core.query_terms import DateTerm, EvalName, EvalTerm, MetricTerm, NumberTerm, Operator
from adaptry.storage.catalog.predicates import FALSE, Predicate, Value, predicate
from adaptry.storage.catalog.rows import AdapterRow, MetricRow, MetricSummaryRow, VersionRow
from adaptry.storage.catalog.search_condition import SearchCondition, any_of, has_row
from adaptry.storage.catalog.version_lists import VersionList

_MAX_INTEGER, _MAX_BIGINT = 2**31 - 1, 2**62
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
_BIGINT_FIELDS = frozenset({"size", "parameters"})
"""The 64-bit number columns."""
_FLOATS = frozenset({"alpha"})
_COLUMNS_BY_PICK = {
    "newest": col(MetricSummaryRow.newest),
    "max": col(MetricSummaryRow.highest),
    "min": col(MetricSummaryRow.lowest),
}
_OF_SUMMARY = col(MetricSummaryRow.version_id) == col(VersionRow.id)
_OF_ADAPTER = col(AdapterRow.id) == col(VersionRow.adapter_id)
_OF_VERSION = col(MetricRow.version_id) == col(VersionRow.id)
IN_FORCE = (col(MetricRow.task).is_not(None), col(MetricRow.withdrawn_at).is_(None))
_VISIBILITIES = ("public", "private")  # both, so that the index by visibility and time is used


ALL = select(col(VersionRow.id))
_SUMMARIES = select(col(MetricSummaryRow.version_id))
_MEASURED = select(col(MetricRow.version_id))
_OF_ADAPTERS = select(col(VersionRow.id)).select_from(AdapterRow).join(VersionRow, _OF_ADAPTER)


def number(term: NumberTerm) -> SearchCondition:
    value = term.value if term.field in _FLOATS else _whole(term)
    if value is None:
        return SearchCondition(predicate(_has_number, term.field) if term.operator == "!=" else FALSE)
    return SearchCondition(
        predicate(_is_number, term.field, term.operator, values=[value]),
        VersionList(ALL, predicate(_in_range, term.field, term.operator, values=[value])),
    )


def number_range(term: NumberTerm) -> Predicate | None:
    """A comparison as a range of the column's index; None if nothing matches."""
    value = term.value if term.field in _FLOATS else _whole(term)
    return None if value is None else predicate(_in_range, term.field, term.operator, values=[value])


def _has_number(field: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = _NUMBERS[field].is_not(None)
    return found


def _is_number(field: str, operator: Operator, value: Value) -> ColumnElement[bool]:
    # `+ 0` prevents the planner from using this column's index if we chose another index to drive the query.
    return and_(_has_number(field), _COMPARE[operator](_NUMBERS[field] + 0, value))


def _in_range(field: str, operator: Operator, value: Value) -> ColumnElement[bool]:
    return compared(operator, _NUMBERS[field], value)


def date(term: DateTerm) -> SearchCondition:
    if term.field == "created":
        return SearchCondition(created_range(term), VersionList(ALL, created_range(term)))
    period = [moment for moment in (term.since, term.until) if moment is not None]
    shape = (term.since is not None, term.until is not None, term.is_outside)
    return SearchCondition(
        predicate(_was_updated, *shape, values=period),
        VersionList(_OF_ADAPTERS, predicate(_of_updated, *shape, values=period)),
    )


def created_range(term: DateTerm) -> Predicate:
    """Creation times as a range of their index."""
    period = [moment for moment in (term.since, term.until) if moment is not None]
    has_start, has_end = term.since is not None, term.until is not None
    return predicate(_was_created, has_start, has_end, term.is_outside, values=period)


def _was_created(has_start: bool, has_end: bool, is_outside: bool, *period: Value) -> ColumnElement[bool]:
    return _in_period(col(VersionRow.created_at), has_start, has_end, is_outside, period)


def _was_updated(has_start: bool, has_end: bool, is_outside: bool, *period: Value) -> ColumnElement[bool]:
    holds = _in_period(col(AdapterRow.updated_at), has_start, has_end, is_outside, period)
    return has_row(AdapterRow, and_(_OF_ADAPTER, holds))


def _of_updated(has_start: bool, has_end: bool, is_outside: bool, *period: Value) -> ColumnElement[bool]:
    holds = _in_period(col(AdapterRow.updated_at), has_start, has_end, is_outside, period)
    exists = (col(AdapterRow.visibility).in_(_VISIBILITIES), col(AdapterRow.deleted_at).is_(None))
    return and_(*exists, holds)


def _in_period(
    column: Any, has_start: bool, has_end: bool, is_outside: bool, period: Sequence[Value]
) -> ColumnElement[bool]:
    """(`Any`: a column of times.)"""
    if is_outside:
        return or_(column < period[0], column >= period[1])
    since = [column >= period[0]] if has_start else []
    until = [column < period[-1]] if has_end else []
    return and_(*since, *until)


def metric(term: MetricTerm) -> SearchCondition:
    values = (term.metric, term.value)
    return SearchCondition(
        predicate(_has_metric_value, term.pick, term.operator, values=values),
        VersionList(_SUMMARIES, predicate(_of_metric_value, term.pick, term.operator, values=values)),
    )


def _of_metric_value(pick: str, operator: Operator, name: Value, value: Value) -> ColumnElement[bool]:
    return and_(col(MetricSummaryRow.metric) == name, compared(operator, _COLUMNS_BY_PICK[pick], value))


def _has_metric_value(pick: str, operator: Operator, name: Value, value: Value) -> ColumnElement[bool]:
    return has_row(MetricSummaryRow, and_(_OF_SUMMARY, _of_metric_value(pick, operator, name, value)))


def metric_range(term: MetricTerm) -> Predicate:
    """The newest values as a range of their index."""
    return predicate(_in_metric_range, term.operator, values=[term.value])


def _in_metric_range(operator: Operator, value: Value) -> ColumnElement[bool]:
    return compared(operator, col(MetricSummaryRow.newest), value)


def evaluation(term: EvalTerm) -> SearchCondition:
    """The newest evidence in force is compared; the list has older values too."""
    values = (term.value, *texts_of(term.name))
    return SearchCondition(
        predicate(_is_evaluated, term.operator, values=values),
        VersionList(_MEASURED, predicate(_of_evaluation, term.operator, values=values)),
    )


def _is_evaluated(operator: Operator, value: Value, *name: Value) -> ColumnElement[bool]:
    newest = (
        select(col(MetricRow.value))
        .where(_OF_VERSION, is_measured(*name))
        .order_by(col(MetricRow.id).desc())
        .limit(1)
        .correlate(VersionRow)
        .scalar_subquery()
    )
    return func.coalesce(compared(operator, newest, value), false())


def _of_evaluation(operator: Operator, value: Value, *name: Value) -> ColumnElement[bool]:
    return and_(is_measured(*name), compared(operator, col(MetricRow.value), value))


def evaluation_range(term: EvalTerm) -> Predicate:
    """The values of all evidence as a range of their index."""
    return predicate(_in_evaluation_range, term.operator, values=[term.value])


def _in_evaluation_range(operator: Operator, value: Value) -> ColumnElement[bool]:
    return compared(operator, col(MetricRow.value), value)


def texts_of(name: EvalName) -> Sequence[str]:
    """The parameters of `is_measured`."""
    return (name.task, name.metric) if name.filter is None else (name.task, name.metric, name.filter)


def is_measured(task: Value, metric: Value, *filter: Value) -> ColumnElement[bool]:
    """The condition of rows of evidence in force of a task's metric."""
    of_filter = [col(MetricRow.filter) == one for one in filter]
    return and_(*IN_FORCE, col(MetricRow.task) == task, col(MetricRow.metric) == metric, *of_filter)


def has_measured(name: EvalName) -> SearchCondition:
    return _has_rows(is_measured, *texts_of(name))


def compared(operator: Operator, column: Any, value: Any) -> ColumnElement[bool]:
    """(`Any`: a column of numbers, and a number.)"""
    found: ColumnElement[bool] = _COMPARE[operator](column, value)
    return found


def has_number(field: str) -> SearchCondition:
    return SearchCondition(predicate(_has_number, field), VersionList(ALL, predicate(_has_number, field)))


def has_metric(name: str) -> SearchCondition:
    values = [name] if name else []
    return SearchCondition(
        predicate(_has_summary, values=values), VersionList(_SUMMARIES, predicate(_of_metric, values=values))
    )


def _of_metric(*name: Value) -> ColumnElement[bool]:
    return and_(true(), *(col(MetricSummaryRow.metric) == one for one in name))


def _has_summary(*name: Value) -> ColumnElement[bool]:
    return has_row(MetricSummaryRow, and_(_OF_SUMMARY, _of_metric(*name)))


def has_evaluation(name: str) -> SearchCondition:
    """`name` is a task, or a task and a metric (and maybe a filter); without it, any evidence of a task."""
    if not name:
        return _has_rows(_is_evidence)
    named, _, filter = name.partition(",")
    task, _, metric = named.rpartition(".")
    return any_of(
        [_has_rows(is_measured, task, metric, *([filter] if filter else [])), _has_rows(_is_of_task, name)]
    )


def _is_evidence() -> ColumnElement[bool]:
    return and_(*IN_FORCE)


def _is_of_task(task: Value) -> ColumnElement[bool]:
    return and_(*IN_FORCE, col(MetricRow.task) == task)


def _has_rows(build: Callable[..., ColumnElement[bool]], *values: str) -> SearchCondition:
    """Versions with a row of evidence that meets the condition."""
    return SearchCondition(
        predicate(_has_evidence, build, values=values),
        VersionList(_MEASURED, predicate(build, values=values)),
    )


def _has_evidence(build: Callable[..., ColumnElement[bool]], *values: Value) -> ColumnElement[bool]:
    return has_row(MetricRow, and_(_OF_VERSION, build(*values)))


def _whole(term: NumberTerm) -> int | None:
    """The whole number to compare an integer column with; None if no whole number can be equal.

    PostgreSQL uses an index only for numbers of the column's own kind.
    """
    value, operator = term.value, term.operator
    largest = _MAX_BIGINT if term.field in _BIGINT_FIELDS else _MAX_INTEGER
    if operator in ("=", "!=") and not (value.is_integer() and abs(value) <= largest):
        return None
    rounded = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    return max(-largest, min(largest, rounded))
