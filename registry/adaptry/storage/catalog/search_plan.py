"""How a search finds its candidates: from a short list, or by an index scan in its order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, select

from adaptry.core.query import Query
from adaptry.core.query_terms import (
    DateTerm,
    EvalName,
    EvalTerm,
    HasTerm,
    MetricTerm,
    NumberTerm,
    TextTerm,
)
from adaptry.registry.sort_keys import SearchOrder
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.adapter_pages import Listing
from adaptry.storage.catalog.adapter_scan import ByAdapter
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.evidence_scan import ByEvidence, newest_values
from adaptry.storage.catalog.index_scans import (
    ByColumn,
    ByCreation,
    ByKey,
    ByMetric,
    ByTerms,
    IndexScan,
    KnownVersions,
    ThenOthers,
    equals,
)
from adaptry.storage.catalog.predicates import Predicate, keys_where, one_of, predicate, select_where
from adaptry.storage.catalog.rows import AdapterRow, MetricSummaryRow, VersionRow
from adaptry.storage.catalog.search_condition import SearchCondition, with_any_term
from adaptry.storage.catalog.search_positions import Ordering, SearchPosition
from adaptry.storage.catalog.term_windows import newest_key, term_windows
from adaptry.storage.catalog.value_conditions import (
    ALL,
    created_range,
    evaluation_range,
    has_measured,
    has_metric,
    metric_range,
    number_range,
)
from adaptry.storage.catalog.version_info import table_of
from adaptry.storage.catalog.version_lists import VersionList, is_in_few

_SPARSE = 20  # a sparse list has fewer than one in this many versions
_V = table_of(VersionRow).c
_COLUMNS: Mapping[str, ColumnElement[Any]] = {  # columns of several types
    "created": _V.created_at,
    "downloads": _V.downloads,
    "rank": _V.rank,
    "alpha": _V.alpha,
    "size": _V.size,
}
_VALUED = {name: select(_V.id, column.label("value")) for name, column in _COLUMNS.items()}
_SUMMARIES = table_of(MetricSummaryRow).c
_LOGGED = select(_SUMMARIES.version_id, _SUMMARIES.newest)
_ADAPTERS = table_of(AdapterRow).c
_OF_ADAPTERS = select(_V.id, _V.number, _ADAPTERS.name, _ADAPTERS.updated_at).join(
    table_of(AdapterRow), _ADAPTERS.id == _V.adapter_id
)


def few_versions(
    tx: Reads, conditions: Sequence[SearchCondition], ordering: Ordering, maximum: int
) -> KnownVersions | None:
    """A condition's versions, if it has fewer than `maximum`."""
    for condition in conditions:
        if condition.lister is None:
            continue
        listed = is_in_few(tx, condition.lister, _V.id, maximum)
        if listed is not None:
            tests = [one.test for one in conditions if one is not condition or not one.is_exact]
            keys = keys_where(tx, ALL, [listed, *tests])
            return KnownVersions(_positions(tx, keys, ordering.order), ordering)
    return None


def matching(tx: Reads, keys: Sequence[int], conditions: Sequence[SearchCondition]) -> Sequence[int]:
    """The given versions that meet all conditions."""
    if not keys:
        return ()
    predicates = [one_of(tx, _V.id, keys), *(one.test for one in conditions)]
    return keys_where(tx, ALL, predicates)


def _positions(tx: Reads, keys: Sequence[int], order: SearchOrder) -> list[SearchPosition]:
    """The positions of versions in an order."""
    if not keys or order.column == "newest":
        return [SearchPosition(key) for key in keys]
    if order.evaluation is not None:
        values = newest_values(tx, order.evaluation, keys)
        return [SearchPosition(key, *_valued(values.get(key))) for key in keys]
    if order.metric is not None:
        of_metric = predicate(equals, _SUMMARIES.metric, values=[order.metric])
        found = select_where(tx, _LOGGED, [one_of(tx, _SUMMARIES.version_id, keys), of_metric])
        logged = {row.version_id: row.newest for row in found}
        return [SearchPosition(key, logged.get(key)) for key in keys]
    of_keys = [one_of(tx, _V.id, keys)]
    if order.column in ("name", "updated"):
        return [
            SearchPosition(
                row.id, row.updated_at if order.column == "updated" else None, row.name, row.number
            )
            for row in select_where(tx, _OF_ADAPTERS, of_keys)
        ]
    assert order.column is not None
    return [SearchPosition(row.id, row.value) for row in select_where(tx, _VALUED[order.column], of_keys)]


def _valued(found: tuple[float, int] | None) -> tuple[float | None, str, int]:
    return (found[0], "", found[1]) if found else (None, "", 0)


def scan_of(
    tx: Reads,
    scope: ReadScope,
    query: Query,
    conditions: Sequence[SearchCondition],
    ordering: Ordering,
    maximum: int,
) -> IndexScan:
    """The scan in an order."""
    order = ordering.order
    if order.evaluation is not None:
        return _by_evidence(query, order.evaluation, ordering)
    if order.metric is not None:
        return _by_metric(query, order.metric, ordering)
    if order.column in ("name", "updated"):
        return _by_adapter(scope, query, ordering)
    if order.column == "newest":
        return _by_age(tx, conditions, ordering, maximum, tuple(_ranges(query, "created")))
    assert order.column is not None
    return ByColumn(_COLUMNS[order.column], ordering, tuple(_ranges(query, order.column)))


def _by_evidence(query: Query, name: EvalName, ordering: Ordering) -> IndexScan:
    terms = [one for one in query.parts if isinstance(one, EvalTerm) and one.name == name]
    ranges = tuple(evaluation_range(one) for one in terms)
    has_value = None if terms else has_measured(name).test
    return ThenOthers(ByEvidence(name, ordering, ranges), has_value, ordering)


def _by_metric(query: Query, name: str, ordering: Ordering) -> IndexScan:
    terms = [
        one
        for one in query.parts
        if isinstance(one, MetricTerm) and one.metric == name and one.pick == "newest"
    ]
    ranges = tuple(metric_range(one) for one in terms)
    is_required = bool(terms) or HasTerm("metric", name) in query.parts
    has_value = None if is_required else has_metric(name).test
    return ThenOthers(ByMetric(name, ordering, ranges), has_value, ordering)


def _by_adapter(scope: ReadScope, query: Query, ordering: Ordering) -> IndexScan:
    if ordering.order.column == "name":
        return ByAdapter(scope, Listing(_namespace(query), "name", ordering.reverse), ordering)
    periods = [
        one
        for one in query.parts
        if isinstance(one, DateTerm) and one.field == "updated" and not one.is_outside
    ]
    since = max((one.since for one in periods if one.since), default=None)
    until = min((one.until for one in periods if one.until), default=None)
    return ByAdapter(scope, Listing(_namespace(query), "updated", ordering.reverse), ordering, since, until)


def _ranges(query: Query, column: str) -> Iterator[Predicate]:
    """Conditions of the query on the column of its order, from which the scan begins."""
    for part in query.parts:
        if isinstance(part, NumberTerm) and part.field == column and part.operator != "!=":
            found = number_range(part)
            if found is not None:
                yield found
        if isinstance(part, DateTerm) and part.field == column and not part.is_outside:
            yield created_range(part)


def _namespace(query: Query) -> str | None:
    """The namespace that all matches are in, if the query names one."""
    for part in query.parts:
        if isinstance(part, TextTerm) and part.field == "namespace" and not part.is_prefix:
            return part.text
    return None


def _by_age(
    tx: Reads,
    conditions: Sequence[SearchCondition],
    ordering: Ordering,
    maximum: int,
    created: tuple[Predicate, ...],
) -> IndexScan:
    """The sparsest list among the terms; a period, unless a list is much sparser than all versions; or all
    versions.
    """
    newest = newest_key(tx)
    sparsest: tuple[int, IndexScan] | None = None
    for condition in conditions:
        if not condition.terms:
            continue
        found = _sparse(tx, condition.terms, maximum, ordering.reverse)
        if found is not None and (sparsest is None or found[0] < sparsest[0]):
            sparsest = found
    if created and (sparsest is None or newest - sparsest[0] < _SPARSE * maximum):
        return ByCreation(ordering, created)
    return sparsest[1] if sparsest else ByKey(oldest_first=ordering.reverse)


def _sparse(
    tx: Reads, terms: tuple[int, ...], maximum: int, oldest_first: bool
) -> tuple[int, IndexScan] | None:
    """A scan of the versions with one of the terms, and an estimate of the key of its version number
    `maximum`; None if so many have one that all may be read.
    """
    if len(terms) > 1:
        windows = None if oldest_first else term_windows(tx, terms)
        return (windows.nth_key(maximum), ByTerms(windows)) if windows else None
    lister = with_any_term(terms).lister
    assert isinstance(lister, VersionList)
    nth = lister.nth_key(tx, maximum)
    return nth or 0, ByKey(terms[0], oldest_first)
