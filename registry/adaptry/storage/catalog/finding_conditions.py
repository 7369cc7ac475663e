"""Conditions on findings, as each reader is shown them.

A reader who may not see a version's base is shown the findings that need no base, and one that the base is
unknown (`checks.without_base`). A search by findings must not tell more.
"""

from __future__ import annotations

from sqlalchemy import case, func, not_, select
from sqlmodel import col

from adaptry.core.query_terms import NumberTerm, TextTerm
from adaptry.storage.catalog import value_conditions
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import BaseRow, PostingRow, TermRow, VersionRow
from adaptry.storage.catalog.search_condition import (
    SearchCondition,
    all_of,
    any_of,
    none_of,
    with_any_term,
)
from adaptry.storage.catalog.version_lists import VersionList

_UNKNOWN_BASE = "base_unknown"


def finding(tx: Transaction, scope: ReadScope, term: TextTerm) -> SearchCondition:
    """Versions with a finding of this code, or of one that begins so."""

    def is_meant(code: str) -> bool:
        return code.startswith(term.text) if term.is_prefix else code == term.text

    keys = {code: key for code, key in _codes(tx).items() if is_meant(code)}
    stored = with_any_term(sorted(keys.values()))
    hidden = _hidden(scope)
    if hidden is None:
        return stored
    from adaptry.checks.codes import AGAINST_BASE  # all checks, which other searches do not need

    alone = with_any_term(sorted(key for code, key in keys.items() if code not in AGAINST_BASE))
    shown = hidden if is_meant(_UNKNOWN_BASE) else all_of([alone, hidden])
    return any_of([all_of([stored, none_of(hidden)]), shown])


def count(tx: Transaction, scope: ReadScope, term: NumberTerm) -> SearchCondition:
    """The number of findings compared with a number."""
    stored = value_conditions.number(term)
    hidden = _hidden(scope)
    if hidden is None:
        return stored
    from adaptry.checks.codes import AGAINST_BASE

    alone = [key for code, key in _codes(tx).items() if code not in AGAINST_BASE]
    shown = (
        select(func.count() + 1)
        .select_from(PostingRow)
        .where(col(PostingRow.version_id) == col(VersionRow.id), col(PostingRow.term_id).in_(alone))
        .correlate(VersionRow)
        .scalar_subquery()
    )
    number = case((hidden.test, shown), else_=col(VersionRow.findings))
    test = value_conditions.compared(term.operator, number, term.value)
    return SearchCondition(test, any_of([stored, hidden]).lister)


def _codes(tx: Transaction) -> dict[str, int]:
    """The codes that any version has, of which there are as many as checks; and the keys of their terms."""
    rows = tx.execute(select(col(TermRow.text), col(TermRow.id)).where(col(TermRow.field) == "finding"))
    return {row.text: row.id for row in rows}


def _hidden(scope: ReadScope) -> SearchCondition | None:
    """Versions whose base is registered and hidden from the reader; None if the reader sees all bases."""
    seen = scope.base_condition()
    if seen is None:
        return None
    base = col(VersionRow.base_id)
    is_hidden = base.is_not(None) & base.in_(select(col(BaseRow.id)).where(not_(seen)))
    return SearchCondition(is_hidden, VersionList(select(col(VersionRow.id)).where(is_hidden)))
