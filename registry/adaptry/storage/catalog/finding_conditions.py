"""Conditions on findings, as each reader is shown them.

A reader who may not see a version's base is shown the findings that need no base, and one that the base is
unknown (`checks.without_base`). A search by findings must not reveal more.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Float, case, func, not_, select, type_coerce
from sqlmodel import col

from adaptry.core.query_terms import NumberTerm, Operator, TextTerm
from adaptry.storage.catalog import value_conditions
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.predicates import Value, predicate
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import BaseRow, PostingRow, TermRow, VersionRow
from adaptry.storage.catalog.search_condition import (
    SearchCondition,
    all_of,
    any_of,
    none_of,
    with_any_term,
)
from adaptry.storage.catalog.version_info import table_of
from adaptry.storage.catalog.version_lists import VersionList

_UNKNOWN_BASE = "base_unknown"
_CODES = select(*table_of(TermRow).c["text", "id"]).where(col(TermRow.field) == "finding")


def finding(tx: Reads, scope: ReadScope, term: TextTerm) -> SearchCondition:
    """Versions with a finding of this code, or of a code with this prefix."""

    def is_meant(code: str) -> bool:
        return code.startswith(term.text) if term.is_prefix else code == term.text

    keys = {code: key for code, key in _codes(tx).items() if is_meant(code)}
    stored = with_any_term(sorted(keys.values()))
    hidden = _hidden(scope)
    if hidden is None:
        return stored
    from adaptry.checks.base_codes import AGAINST_BASE  # imports all checks; other searches need none

    alone = with_any_term(sorted(key for code, key in keys.items() if code not in AGAINST_BASE))
    shown = hidden if is_meant(_UNKNOWN_BASE) else all_of([alone, hidden])
    return any_of([all_of([stored, none_of(hidden)]), shown])


def count(tx: Reads, scope: ReadScope, term: NumberTerm) -> SearchCondition:
    """Versions whose number of findings compares in this way with a number."""
    stored = value_conditions.number(term)
    hidden = _hidden(scope)
    if hidden is None:
        return stored
    from adaptry.checks.base_codes import AGAINST_BASE

    alone = sorted(key for code, key in _codes(tx).items() if code not in AGAINST_BASE)
    return SearchCondition(
        predicate(_has_count, scope, term.operator, values=[term.value, *alone]),
        any_of([stored, hidden]).lister,
    )


def _has_count(scope: ReadScope, operator: Operator, value: Value, *alone: Value) -> ColumnElement[bool]:
    """The condition on the number of findings, where `alone` are the terms of those that need no base."""
    shown = (
        select(func.count() + 1)
        .select_from(PostingRow)
        .where(col(PostingRow.version_id) == col(VersionRow.id), col(PostingRow.term_id).in_(alone))
        .correlate(VersionRow)
        .scalar_subquery()
    )
    number = case((_has_hidden_base(scope), shown), else_=col(VersionRow.findings))
    return value_conditions.compared(operator, number, type_coerce(value, Float))


def _codes(tx: Reads) -> dict[str, int]:
    """The codes that any version has, with the keys of their terms. There are at most as many as checks."""
    return {row.text: row.id for row in run_select(tx, _CODES, {})}


def _hidden(scope: ReadScope) -> SearchCondition | None:
    """Versions whose base is registered and hidden from the reader; None if the reader sees all bases."""
    if scope.namespaces is None:
        return None
    is_hidden = predicate(_has_hidden_base, scope)
    return SearchCondition(is_hidden, VersionList(value_conditions.ALL, is_hidden))


def _has_hidden_base(scope: ReadScope) -> ColumnElement[bool]:
    seen = scope.base_condition()
    assert seen is not None
    base = col(VersionRow.base_id)
    return base.is_not(None) & base.in_(select(col(BaseRow.id)).where(not_(seen)))
