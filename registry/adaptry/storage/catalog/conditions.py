"""The conditions of a search term: one that tests a version, and one that lists versions.

`test` checks a given version by an index look-up; `lister` selects the keys of all matching versions, also
from an index, and records whether they are sorted newest first. `search` decides which lister drives the
query.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    exists,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)
from sqlmodel import col

from adaptry.core.lifecycle import SEARCHABLE
from adaptry.core.query import MetricTerm, NumberTerm, Operator, Term, TextTerm, WordTerm
from adaptry.storage.catalog import terms
from adaptry.storage.catalog.access import EVERYTHING, ReadScope, is_among
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
from adaptry.storage.catalog.version_info import run_select
from adaptry.storage.catalog.version_lists import Keys, VersionList

_MOST_TERMS = 20
_MOST_NAMES = 200
_FEW = 4  # terms that are looked up one by one for each version
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
"""The 64-bit number columns."""
_PICKS = {
    "newest": col(MetricSummaryRow.newest),
    "max": col(MetricSummaryRow.highest),
    "min": col(MetricSummaryRow.lowest),
}
_TERM = select(col(TermRow.id)).where(
    col(TermRow.field) == bindparam("field"), col(TermRow.text) == bindparam("text")
)
_OF_TERM = select(col(PostingRow.version_id)).where(col(PostingRow.term_id) == bindparam("term"))
_BASE_NAMED = select(col(BaseNameRow.base_id)).where(col(BaseNameRow.name) == bindparam("name"))


@dataclass(frozen=True, slots=True)
class SearchCondition:
    """`lister` lists the versions; None if nothing is better than reading all versions.

    `terms`, if any, are several terms whose versions the lister selects; each has an ordered list.
    """

    test: ColumnElement[bool]
    lister: VersionList | None = None
    terms: tuple[int, ...] = ()


def term_conditions(tx: Transaction, scope: ReadScope, parsed: Sequence[Term]) -> list[SearchCondition]:
    return [condition for term in parsed for condition in _of_term(tx, scope, term)]


def state_conditions(parsed: Sequence[Term]) -> list[SearchCondition]:
    """The condition that a version's state is listed by default; no condition if the query names states."""
    if any(isinstance(term, TextTerm) and term.field == "state" and not term.negated for term in parsed):
        return []
    return [SearchCondition(col(VersionRow.state).in_(SEARCHABLE))]


def scope_conditions(tx: Transaction, scope: ReadScope) -> list[SearchCondition]:
    """The condition that a version's adapter is visible; no condition for callers who see everything."""
    if scope.namespaces is None:
        return []
    is_public = and_(_is("visibility"), col(TermRow.text) == "public")
    of_namespace = and_(_is("namespace"), col(TermRow.text).in_(scope.namespaces))
    keys = list(tx.execute(select(col(TermRow.id)).where(or_(is_public, of_namespace))).scalars())
    if scope.names:
        named = and_(_is("name"), or_(*(is_among(col(TermRow.text), names) for names in scope.names)))
        of_names = list(tx.execute(select(col(TermRow.id)).where(named).limit(_MOST_NAMES + 1)).scalars())
        if len(of_names) > _MOST_NAMES:
            return [_seen_by_name(scope, keys)]
        keys += of_names
    condition = _with_any(keys)
    if len(keys) <= _FEW:
        return [condition]
    seen = scope.adapter_condition()
    assert seen is not None
    return [replace(condition, test=_of_adapter(seen))]


def _of_adapter(seen: ColumnElement[bool]) -> ColumnElement[bool]:
    return _some(AdapterRow, (col(AdapterRow.id) == col(VersionRow.adapter_id)) & seen)


def _seen_by_name(scope: ReadScope, keys: Sequence[int]) -> SearchCondition:
    """Versions of adapters that are public or in readable namespaces (the terms `keys`), or named, by very
    many names.
    """
    seen = scope.adapter_condition()
    assert seen is not None
    named = select(col(AdapterRow.id)).where(
        or_(*(is_among(col(AdapterRow.name), one) for one in scope.names))
    )
    both = union_all(
        select(col(PostingRow.version_id).label("id")).where(col(PostingRow.term_id).in_(keys)),
        select(col(VersionRow.id).label("id")).where(col(VersionRow.adapter_id).in_(named)),
    ).subquery()
    return SearchCondition(_of_adapter(seen), VersionList(select(both.c.id)))


def _of_term(tx: Transaction, scope: ReadScope, term: Term) -> list[SearchCondition]:
    match term:
        case WordTerm():
            found = _words(tx, term)
        case TextTerm(field="state", text=""):
            return []  # in any state
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
    return [SearchCondition(not_(and_(*(condition.test for condition in found))))]


def _words(tx: Transaction, term: WordTerm) -> list[SearchCondition]:
    """A word may end in `*`; one that the index splits (`multi-lingual`) requires all parts."""
    parts = list(terms.words(term.text))
    if not parts:
        return [SearchCondition(false())]
    begins = term.text.endswith("*")
    return [_text(tx, TextTerm("word", part, is_prefix=begins and part == parts[-1])) for part in parts]


def _text(tx: Transaction, term: TextTerm, scope: ReadScope = EVERYTHING) -> SearchCondition:
    text = term.text.lower() if term.field == "method" else term.text
    if not term.is_prefix:
        texts = [text, *(_ids_of_base(tx, scope, text) if term.field == "base" else ())]
        found = [run_select(tx, _TERM, {"field": term.field, "text": one}) for one in texts]
        return _with_any([row.id for rows in found for row in rows])
    fits = (col(TermRow.text) >= text) & (col(TermRow.text) < _after(text))
    matching = select(col(TermRow.id)).where(_is(term.field), fits)
    keys = list(tx.execute(matching.limit(_MOST_TERMS + 1)).scalars())
    if len(keys) <= _MOST_TERMS:
        return _with_any([key for key in keys if key is not None])
    lister = select(col(PostingRow.version_id)).where(col(PostingRow.term_id).in_(matching))
    return SearchCondition(_begins(term.field, text), VersionList(lister))


def _revision(term: TextTerm) -> SearchCondition:
    """Versions of one revision, under any name; uses the digest column, not a term."""
    column, hex = col(VersionRow.digest), term.text.removeprefix("sha256:")
    holds = (column >= hex) & (column < _after(hex)) if term.is_prefix else column == hex
    return SearchCondition(holds, VersionList(select(col(VersionRow.id)).where(holds)))


def _begins(field: str, text: str) -> ColumnElement[bool]:
    """The condition that a version has one of many texts with the same prefix; looked up by version, since
    there are many texts.
    """
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


def _with_any(keys: Sequence[int]) -> SearchCondition:
    """Versions that have one of a few terms."""
    if not keys:
        return SearchCondition(false())
    of_version = col(PostingRow.version_id) == col(VersionRow.id)
    if len(keys) == 1:
        test = _some(PostingRow, of_version & (col(PostingRow.term_id) == keys[0]))
        return SearchCondition(test, VersionList(_OF_TERM, {"term": keys[0]}, is_newest_first=True))
    has_term = col(PostingRow.term_id).in_(keys)
    lister = VersionList(select(col(PostingRow.version_id)).where(has_term))
    return SearchCondition(_some(PostingRow, of_version & has_term), lister, tuple(keys))


def _number(term: NumberTerm) -> SearchCondition:
    column, compare = _NUMBERS[term.field], _COMPARE[term.operator]
    whole = _whole(term)
    if whole is None:
        return SearchCondition(column.is_not(None) if term.operator == "!=" else false())
    # `+ 0` prevents the planner from using this column's index if we chose another index to drive the query.
    return SearchCondition(
        column.is_not(None) & compare(column + 0, whole),
        VersionList(_of_number(term.field, term.operator), {"value": whole}),
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


def _metric(term: MetricTerm) -> SearchCondition:
    holds = (col(MetricSummaryRow.metric) == term.metric) & _COMPARE[term.operator](
        _PICKS[term.pick], term.value
    )
    of_version = col(MetricSummaryRow.version_id) == col(VersionRow.id)
    return SearchCondition(
        _some(MetricSummaryRow, of_version & holds),
        VersionList(_of_metric(term.pick, term.operator), {"metric": term.metric, "value": term.value}),
    )


@cache
def _of_number(field: str, operator: Operator) -> Keys:
    return select(col(VersionRow.id)).where(_COMPARE[operator](_NUMBERS[field], bindparam("value")))


@cache
def _of_metric(pick: str, operator: Operator) -> Keys:
    return select(col(MetricSummaryRow.version_id)).where(
        col(MetricSummaryRow.metric) == bindparam("metric"),
        _COMPARE[operator](_PICKS[pick], bindparam("value")),
    )


def _some(table: type[Row], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `table` has a row that meets the condition, which refers to the outer query's version."""
    return exists(select(literal_column("1")).select_from(table).where(condition).correlate(VersionRow))


def _base_in_scope(scope: ReadScope, term: TextTerm) -> list[SearchCondition]:
    """The condition that a version may be found by its base: the reader sees the base, or the version itself
    declares this name.
    """
    seen = scope.base_condition()
    if seen is None:
        return []
    name = func.coalesce(col(VersionRow.base_name), "")  # a negated NULL would match nothing
    says = (name >= term.text) & (name < _after(term.text)) if term.is_prefix else name == term.text
    unknown = col(VersionRow.base_id).not_in(select(col(BaseRow.id)).where(not_(seen)))
    return [SearchCondition(or_(says, col(VersionRow.base_id).is_(None), unknown))]


def _ids_of_base(tx: Transaction, scope: ReadScope, text: str) -> list[str]:
    """A base's name is replaced by its id, so that versions match whatever name they were pushed with."""
    if scope.namespaces is None:
        return [f"sha256:{row.base_id}" for row in run_select(tx, _BASE_NAMED, {"name": text})]
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
