"""The conditions of a search: those of its query, of a version's state, and of what the caller may read.

Each has a test that looks a given version up in an index, and most a list of the versions that can meet it.
`search` decides which list drives the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from sqlalchemy import ColumnElement, and_, or_, select, union_all
from sqlmodel import col

from adaptry.core.lifecycle import SEARCHABLE
from adaptry.core.query import And, Node, Not, Or, Query
from adaptry.core.query_terms import (
    DateTerm,
    EvalTerm,
    FitsTerm,
    HasTerm,
    MetricTerm,
    NumberTerm,
    Term,
    TextTerm,
    WordTerm,
)
from adaptry.storage.catalog import finding_conditions, text_conditions, value_conditions
from adaptry.storage.catalog.access import ReadScope, is_among
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.index_updates import outdated_adapters, removed_adapters
from adaptry.storage.catalog.predicates import TRUE, Selection, negated, one_of, predicate
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow, PostingRow, TermRow, VersionRow
from adaptry.storage.catalog.search_condition import (
    SearchCondition,
    all_of,
    any_of,
    has_row,
    none_of,
    with_any_term,
)
from adaptry.storage.catalog.version_info import table_of
from adaptry.storage.catalog.version_lists import VersionList

_ADAPTER = table_of(VersionRow).c.adapter_id
_MAX_NAMES = 200
_CACHE_SIZE = 64  # statements of readers
_OF_SCOPE = frozenset({"visibility", "namespace", "name"})
_MAX_SINGLE_TERMS = 4  # terms that are looked up one by one for each version


def search_conditions(tx: Reads, scope: ReadScope, query: Query) -> list[SearchCondition]:
    """All conditions of a search. A version must meet each of them."""
    found = [_of_node(tx, scope, part) for part in query.parts]
    states = [] if query.names_states else [SearchCondition(predicate(_is_searchable))]
    return [*found, *states, *_not_removed(tx), *scope_conditions(tx, scope)]


def scope_conditions(tx: Reads, scope: ReadScope) -> list[SearchCondition]:
    """The condition that a version's adapter is visible; no condition for callers who see everything."""
    if scope.namespaces is None:
        return []
    outdated = outdated_adapters(tx)
    if any(field in _OF_SCOPE for adapter in outdated for field, _ in adapter.new):
        return [SearchCondition(predicate(_of_adapter, scope))]  # no list has all of these versions
    keys = [row.id for row in run_select(tx, _terms_of_namespaces(scope.namespaces), {})]
    if scope.names:
        of_names = [row.id for row in run_select(tx, _terms_of_names(scope.names), {})]
        if len(of_names) > _MAX_NAMES:
            return [_seen_by_name(scope, keys)]
        keys += of_names
    condition = with_any_term(keys)
    if len(keys) <= _MAX_SINGLE_TERMS and not outdated:
        return [condition]
    return [replace(condition, test=predicate(_of_adapter, scope), is_exact=False)]


def _not_removed(tx: Reads) -> list[SearchCondition]:
    """The condition that a version's adapter is not being removed; none if no adapter is."""
    removed = removed_adapters(tx)
    return [SearchCondition(negated(one_of(tx, _ADAPTER, removed)))] if removed else []


def _is_searchable() -> ColumnElement[bool]:
    return col(VersionRow.state).in_(SEARCHABLE)


@lru_cache(maxsize=_CACHE_SIZE)
def _terms_of_namespaces(namespaces: tuple[str, ...]) -> Selection:
    is_public = and_(_is_field("visibility"), col(TermRow.text) == "public")
    of_namespace = and_(_is_field("namespace"), col(TermRow.text).in_(namespaces))
    return select(col(TermRow.id)).where(or_(is_public, of_namespace))


@lru_cache(maxsize=_CACHE_SIZE)
def _terms_of_names(names: tuple[str, ...]) -> Selection:
    named = and_(_is_field("name"), or_(*(is_among(col(TermRow.text), one) for one in names)))
    return select(col(TermRow.id)).where(named).limit(_MAX_NAMES + 1)


def _of_adapter(scope: ReadScope) -> ColumnElement[bool]:
    seen = scope.adapter_condition()
    assert seen is not None
    return has_row(AdapterRow, and_(col(AdapterRow.id) == col(VersionRow.adapter_id), seen))


def _seen_by_name(scope: ReadScope, keys: Sequence[int]) -> SearchCondition:
    """Versions of adapters that are public or in readable namespaces (the terms `keys`), or named, by very
    many names.
    """
    listed = VersionList(_named(scope.names, tuple(keys)), TRUE)
    return SearchCondition(predicate(_of_adapter, scope), listed)


@lru_cache(maxsize=_CACHE_SIZE)
def _named(names: tuple[str, ...], keys: tuple[int, ...]) -> Selection:
    named = select(col(AdapterRow.id)).where(or_(*(is_among(col(AdapterRow.name), one) for one in names)))
    both = union_all(
        select(col(PostingRow.version_id).label("id")).where(col(PostingRow.term_id).in_(keys)),
        select(col(VersionRow.id).label("id")).where(col(VersionRow.adapter_id).in_(named)),
    ).subquery()
    return select(both.c.id)


def _of_node(tx: Reads, scope: ReadScope, node: Node) -> SearchCondition:
    match node:
        case Not(FitsTerm()):
            return _of_node(tx, scope, node.part)
        case Not(part):
            return none_of(_of_node(tx, scope, part))
        case And(parts):
            return all_of([_of_node(tx, scope, part) for part in parts])
        case Or(parts):
            return any_of([_of_node(tx, scope, part) for part in parts])
    return _of_term(tx, scope, node)


def _of_term(tx: Reads, scope: ReadScope, term: Term) -> SearchCondition:
    match term:
        case WordTerm():
            return text_conditions.word(tx, term)
        case TextTerm(field="state", text=""):
            return SearchCondition(TRUE)
        case TextTerm(field="finding"):
            return finding_conditions.finding(tx, scope, term)
        case TextTerm():
            return text_conditions.text(tx, scope, term)
        case NumberTerm(field="findings"):
            return finding_conditions.count(tx, scope, term)
        case HasTerm(field="finding"):
            return finding_conditions.finding(tx, scope, TextTerm("finding", "", is_prefix=True))
        case NumberTerm():
            return value_conditions.number(term)
        case DateTerm():
            return value_conditions.date(term)
        case MetricTerm():
            return value_conditions.metric(term)
        case EvalTerm():
            return value_conditions.evaluation(term)
        case HasTerm(field="metric"):
            return value_conditions.has_metric(term.name)
        case HasTerm(field="eval"):
            return value_conditions.has_evaluation(term.name)
        case HasTerm(field="rank" | "alpha"):
            return value_conditions.has_number(term.field)
        case HasTerm():
            return text_conditions.any_text(tx, term.field)
        case FitsTerm():
            return SearchCondition(TRUE)  # tested version by version, after all others


def _is_field(field: str) -> ColumnElement[bool]:
    return col(TermRow.field) == field
