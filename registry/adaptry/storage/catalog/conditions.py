"""Each term of a search as a condition on versions: one that tests a version, and one that lists versions.

`test` says whether a given version qualifies, by a look into an index; `lister` gives the keys of all that
do, from an index too, and says whether they come newest first. `search` decides which lister drives.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    exists,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlmodel import col

from adaptry.core.lifecycle import SEARCHABLE
from adaptry.core.query import MetricTerm, NumberTerm, Operator, Term, TextTerm, WordTerm
from adaptry.storage.catalog import terms
from adaptry.storage.catalog.access import EVERYTHING, ReadScope
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import (
    AdapterRow,
    BaseNameRow,
    BaseRow,
    MetricSummaryRow,
    PostingRow,
    Row,
    TermRow,
    VersionRow,
)

Keys = Select[Any]
"""Selects one column of keys. (`Any`: SQLAlchemy 2.0 and 2.1 spell its type differently.)"""

_MOST_TERMS = 20
_LARGEST, _LARGEST_LONG = 2**31 - 1, 2**62
_COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {  # columns in, SQL out: typed by SQLAlchemy as Any
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBERS = {
    "rank": col(VersionRow.rank),
    "size": col(VersionRow.size),
    "parameters": col(VersionRow.parameters),
    "version": col(VersionRow.number),
    "downloads": col(VersionRow.downloads),
}
_LONG = frozenset({"size", "parameters"})
"""Those of 64 bits."""
_PICKS = {
    "newest": col(MetricSummaryRow.newest),
    "max": col(MetricSummaryRow.highest),
    "min": col(MetricSummaryRow.lowest),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`lister` selects one column, keys of versions; None where nothing better than walking all is known."""

    test: ColumnElement[bool]
    lister: Keys | None = None
    is_newest_first: bool = False


def term_conditions(tx: Transaction, scope: ReadScope, parsed: Sequence[Term]) -> list[Condition]:
    return [condition for term in parsed for condition in _of_term(tx, scope, term)]


def state_conditions(parsed: Sequence[Term]) -> list[Condition]:
    """That a version is in a state that is found unasked; none if a query says which states it wants."""
    if any(isinstance(term, TextTerm) and term.field == "state" and not term.negated for term in parsed):
        return []
    return [Condition(col(VersionRow.state).in_(SEARCHABLE))]


def scope_conditions(tx: Transaction, scope: ReadScope) -> list[Condition]:
    """That a version's adapter is seen; no condition for who sees everything."""
    if scope.namespaces is None:
        return []
    texts = [("visibility", "public"), *(("namespace", name) for name in scope.namespaces)]
    keys = [
        key
        for field, text in texts
        for key in tx.execute(select(col(TermRow.id)).where(_is(field), col(TermRow.text) == text)).scalars()
    ]
    return [_with_any(keys)]


def _of_term(tx: Transaction, scope: ReadScope, term: Term) -> list[Condition]:
    match term:
        case WordTerm():
            found = _words(tx, term)
        case TextTerm(field="state", text=""):
            return []  # whatever state
        case TextTerm(field="digest"):
            found = [_revision(term)]
        case TextTerm(field="base"):
            found = [_text(tx, term, scope), *_base_in_scope(scope, term)]
        case TextTerm():
            found = [_text(tx, term)]
        case NumberTerm():
            found = [_number(term)]
        case MetricTerm():
            found = [_metric(term)]
    if not term.negated:
        return found
    return [Condition(not_(and_(*(condition.test for condition in found))))]


def _words(tx: Transaction, term: WordTerm) -> list[Condition]:
    """A word may end in `*`; one that is several to us (`multi-lingual`) asks for all of them."""
    parts = list(terms.words(term.text))
    if not parts:
        return [Condition(false())]
    begins = term.text.endswith("*")
    return [_text(tx, TextTerm("word", part, is_prefix=begins and part == parts[-1])) for part in parts]


def _text(tx: Transaction, term: TextTerm, scope: ReadScope = EVERYTHING) -> Condition:
    text = term.text.lower() if term.field == "method" else term.text
    fits = col(TermRow.text) == text
    if term.is_prefix:
        fits = (col(TermRow.text) >= text) & (col(TermRow.text) < _after(text))
    elif term.field == "base":
        fits = or_(fits, col(TermRow.text).in_(_ids_of_base(tx, scope, text)))
    matching = select(col(TermRow.id)).where(_is(term.field), fits)
    keys = list(tx.execute(matching.limit(_MOST_TERMS + 1)).scalars())
    if len(keys) <= _MOST_TERMS:
        return _with_any([key for key in keys if key is not None])
    lister = select(col(PostingRow.version_id)).where(col(PostingRow.term_id).in_(matching))
    return Condition(_begins(term.field, text), lister)


def _revision(term: TextTerm) -> Condition:
    """Versions of one revision, under whatever names; every version has a digest column, so no term."""
    column, hex = col(VersionRow.digest), term.text.removeprefix("sha256:")
    holds = (column >= hex) & (column < _after(hex)) if term.is_prefix else column == hex
    return Condition(holds, select(col(VersionRow.id)).where(holds))


def _begins(field: str, text: str) -> ColumnElement[bool]:
    """That a version has one of many texts that begin alike; looked up by version, as texts are many."""
    if field in ("name", "namespace"):
        name, namespace = col(AdapterRow.name), col(AdapterRow.namespace)
        bare = func.substr(name, func.length(namespace) + 2)
        columns = (name, bare) if field == "name" else (namespace,)
        fits = or_(*(and_(column >= text, column < _after(text)) for column in columns))
        return _some(AdapterRow, (col(AdapterRow.id) == col(VersionRow.adapter_id)) & fits)
    of_version = (col(PostingRow.version_id) == col(VersionRow.id)) & _is(field)
    found: Keys = select(literal_column("1")).select_from(PostingRow).join(TermRow)
    return exists(
        found.where(of_version, col(TermRow.text) >= text, col(TermRow.text) < _after(text)).correlate(
            VersionRow
        )
    )


def _with_any(keys: Sequence[int]) -> Condition:
    """Versions that have one of a few terms."""
    if not keys:
        return Condition(false())
    has_term = col(PostingRow.term_id).in_(keys) if len(keys) > 1 else col(PostingRow.term_id) == keys[0]
    of_version = col(PostingRow.version_id) == col(VersionRow.id)
    return Condition(
        _some(PostingRow, of_version & has_term),
        select(col(PostingRow.version_id)).where(has_term),
        is_newest_first=len(keys) == 1,
    )


def _number(term: NumberTerm) -> Condition:
    column, compare = _NUMBERS[term.field], _COMPARE[term.operator]
    whole = _whole(term)
    if whole is None:
        return Condition(column.is_not(None) if term.operator == "!=" else false())
    # `+ 0` keeps the planner from driving by this column's index where we decided that something else drives.
    return Condition(
        column.is_not(None) & compare(column + 0, whole),
        select(col(VersionRow.id)).where(compare(column, whole)),
    )


def _whole(term: NumberTerm) -> int | None:
    """The whole number that a column of such numbers is to be compared with; None where none can equal it.

    PostgreSQL uses an index only for numbers of the column's own kind.
    """
    value, operator = term.value, term.operator
    largest = _LARGEST_LONG if term.field in _LONG else _LARGEST
    if operator in ("=", "!=") and not (value.is_integer() and abs(value) <= largest):
        return None
    rounded = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    return max(-largest, min(largest, rounded))


def _metric(term: MetricTerm) -> Condition:
    holds = (col(MetricSummaryRow.metric) == term.metric) & _COMPARE[term.operator](
        _PICKS[term.pick], term.value
    )
    of_version = col(MetricSummaryRow.version_id) == col(VersionRow.id)
    return Condition(
        _some(MetricSummaryRow, of_version & holds),
        select(col(MetricSummaryRow.version_id)).where(holds),
    )


def _some(table: type[Row], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `table` has a row that meets the condition, which is about a version of the query around it."""
    return exists(select(literal_column("1")).select_from(table).where(condition).correlate(VersionRow))


def _base_in_scope(scope: ReadScope, term: TextTerm) -> list[Condition]:
    """That a version may be found by its base: the reader sees it, or the version gives it that name."""
    seen = scope.base_condition()
    if seen is None:
        return []
    name = func.coalesce(col(VersionRow.base_name), "")  # a negated NULL would find nothing
    says = (name >= term.text) & (name < _after(term.text)) if term.is_prefix else name == term.text
    unknown = col(VersionRow.base_id).not_in(select(col(BaseRow.id)).where(not_(seen)))
    return [Condition(or_(says, col(VersionRow.base_id).is_(None), unknown))]


def _ids_of_base(tx: Transaction, scope: ReadScope, text: str) -> list[str]:
    """A base's name stands for its id, as which versions have it whatever name they were pushed with."""
    named = select(col(BaseNameRow.base_id)).join(BaseRow, col(BaseRow.id) == col(BaseNameRow.base_id))
    if (seen := scope.base_condition()) is not None:
        named = named.where(seen)
    id = tx.execute(named.where(col(BaseNameRow.name) == text)).scalar()
    return [f"sha256:{id}"] if id else []


def _is(field: str) -> ColumnElement[bool]:
    return col(TermRow.field) == field


def _after(prefix: str) -> str:
    """The first text that no longer begins with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
