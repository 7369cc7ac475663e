"""Conditions on texts: words, fields of the search index, digests, and workers that have loaded a version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlmodel import col

from adaptry.core.query_terms import TextTerm, WordTerm
from adaptry.storage.catalog import outdated_terms, terms
from adaptry.storage.catalog.access import EVERYTHING, ReadScope
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.predicates import Selection, Value, predicate, select_where
from adaptry.storage.catalog.prepared import PreparedReads, run_select
from adaptry.storage.catalog.rows import (
    LOADED,
    AdapterRow,
    BaseNameRow,
    BaseRow,
    PostingRow,
    ResidentRow,
    TermRow,
    VersionRow,
    WorkerRow,
)
from adaptry.storage.catalog.search_condition import (
    NOTHING,
    SearchCondition,
    all_of,
    has_row,
    with_any_term,
)
from adaptry.storage.catalog.value_conditions import ALL
from adaptry.storage.catalog.version_lists import VersionList

_MAX_TERMS = 20
_TERM = select(col(TermRow.id)).where(
    col(TermRow.field) == bindparam("field"), col(TermRow.text) == bindparam("text")
)
_TERMS = select(col(TermRow.id))
_FIRST_TERMS = _TERMS.limit(_MAX_TERMS + 1)
# Joined, so that the first versions are found without collecting all terms.
_LISTED_WITH_TERMS = (
    select(col(PostingRow.version_id))
    .select_from(TermRow)
    .join(PostingRow, col(PostingRow.term_id) == col(TermRow.id))
)
_IS_RESIDENT = (col(ResidentRow.worker_id) == col(WorkerRow.id), LOADED, col(WorkerRow.gone_at).is_(None))
_RESIDENTS = select(col(ResidentRow.version_id)).join(WorkerRow, _IS_RESIDENT[0])
_LICENCE_TAG = "license:"
"""A licence is a tag, as on the Hub: what a model card states becomes `license:mit`."""


def word(tx: Reads, term: WordTerm) -> SearchCondition:
    """A word may end in `*`; one that the index splits (`multi-lingual`) requires all parts."""
    parts = list(terms.words(term.text))
    if not parts:
        return NOTHING
    begins = term.text.endswith("*")
    return all_of([_indexed(tx, "word", part, is_prefix=begins and part == parts[-1]) for part in parts])


def text(tx: Reads, scope: ReadScope, term: TextTerm) -> SearchCondition:
    match term.field:
        case "digest":
            return _revision(term)
        case "base":
            named = _indexed(tx, "base", term.text, term.is_prefix, scope)
            return all_of([named, *_base_in_scope(scope, term)])
        case "licence":
            return _indexed(tx, "tag", _LICENCE_TAG + term.text.lower(), term.is_prefix)
        case "method":
            return _indexed(tx, "method", term.text.lower(), term.is_prefix)
        case "loaded":
            return _loaded(term)
    return _indexed(tx, term.field, term.text, term.is_prefix)


def any_text(tx: Reads, field: str) -> SearchCondition:
    """Versions that have any text of a field."""
    if field == "licence":
        return _indexed(tx, "tag", _LICENCE_TAG, is_prefix=True)
    return _indexed(tx, field, "", is_prefix=True)


def _indexed(
    tx: Reads, field: str, text: str, is_prefix: bool = False, scope: ReadScope = EVERYTHING
) -> SearchCondition:
    found = _with_terms(tx, field, text, is_prefix, scope)
    if field not in terms.ADAPTER_FIELDS:
        return found

    def is_meant(term: tuple[str, str]) -> bool:
        return term[0] == field and (term[1].startswith(text) if is_prefix else term[1] == text)

    return outdated_terms.corrected(tx, found, is_meant)


def _with_terms(tx: Reads, field: str, text: str, is_prefix: bool, scope: ReadScope) -> SearchCondition:
    if not is_prefix:
        texts = [text, *(_ids_of_base(tx, scope, text) if field == "base" else ())]
        return with_any_term([key for one in texts for key in _keys_of_term(tx, field, one)])
    begins = predicate(_begins, values=[field, *_range(text)])
    keys = [row.id for row in select_where(tx, _FIRST_TERMS, [begins])]
    if len(keys) <= _MAX_TERMS:
        return with_any_term(keys)
    within: Sequence[int] = ()
    if field == "name" and "/" in text:  # all in one namespace, which has a list in the order of keys
        within = _keys_of_term(tx, "namespace", text.partition("/")[0])
    test = (
        predicate(_has_name, field, values=_range(text))
        if field in ("name", "namespace")
        else predicate(_has_text, values=[field, *_range(text)])
    )
    return SearchCondition(test, VersionList(_LISTED_WITH_TERMS, begins), tuple(within))


def _keys_of_term(tx: Reads, field: str, text: str) -> Sequence[int]:
    """The key of a term, or an empty sequence if there is no such term. Cached until the next commit."""
    kept = tx.kept("terms") if isinstance(tx, PreparedReads) else {}
    keys = kept.get((field, text))
    if keys is None:
        rows = run_select(tx, _TERM, {"field": field, "text": text})
        keys = kept[field, text] = tuple(row.id for row in rows)
    return keys


def _range(prefix: str) -> list[str]:
    """The texts that begin with the prefix, as a range; all if it is empty."""
    return [prefix, after(prefix)] if prefix else []


def _begins(field: Value, *range: Value) -> ColumnElement[bool]:
    return and_(col(TermRow.field) == field, _is_within(col(TermRow.text), *range))


def _is_within(column: Any, *range: Value) -> ColumnElement[bool]:
    """Whether a text is in a `_range`, or in all. (`Any`: a column.)"""
    if not range:
        return true()
    return and_(column >= range[0], column < range[1])


def _is_text(column: Any, *values: Value) -> ColumnElement[bool]:
    """The condition that a column equals one text, or is between two. (`Any`: a column.)"""
    return column == values[0] if len(values) == 1 else _is_within(column, *values)


def _texts(term: TextTerm, text: str) -> list[str]:
    """The values of `_is_text`."""
    return [text, after(text)] if term.is_prefix else [text]


def _revision(term: TextTerm) -> SearchCondition:
    """Versions of one revision, under any name; uses the digest column, not a term."""
    holds = predicate(
        _is_text, col(VersionRow.digest), values=_texts(term, term.text.removeprefix("sha256:"))
    )
    return SearchCondition(holds, VersionList(ALL, holds))


def _loaded(term: TextTerm) -> SearchCondition:
    """Versions that a worker, or an engine of that name, has loaded, as last reported.

    A worker that is no longer heard of counts, since its engine may still serve; one declared gone does not.
    """
    values = _texts(term, term.text) if term.text else []
    return SearchCondition(
        predicate(_is_loaded, values=values), VersionList(_RESIDENTS, predicate(_is_here, values=values))
    )


def _is_here(*values: Value) -> ColumnElement[bool]:
    """The condition that a resident is of a worker or an engine of this name."""
    columns = (col(WorkerRow.name), col(WorkerRow.engine))
    is_named = [or_(*(_is_text(column, *values) for column in columns))] if values else []
    return and_(*_IS_RESIDENT, *is_named)


def _is_loaded(*values: Value) -> ColumnElement[bool]:
    rows: Selection = select(literal_column("1")).select_from(ResidentRow).join(WorkerRow, _IS_RESIDENT[0])
    of_version = col(ResidentRow.version_id) == col(VersionRow.id)
    return exists(rows.where(of_version, _is_here(*values)).correlate(VersionRow))


def _has_name(field: str, *range: Value) -> ColumnElement[bool]:
    """The condition that a version's adapter has a name, or is in a namespace, of a range."""
    name, namespace = col(AdapterRow.name), col(AdapterRow.namespace)
    bare = func.substr(name, func.length(namespace) + 2)
    columns = (name, bare) if field == "name" else (namespace,)
    fits = or_(*(_is_within(column, *range) for column in columns))
    return has_row(AdapterRow, and_(col(AdapterRow.id) == col(VersionRow.adapter_id), fits))


def _has_text(field: Value, *range: Value) -> ColumnElement[bool]:
    """The condition that a version has one of many texts with the same prefix; looked up by version, since
    there are many texts.
    """
    found: Selection = select(literal_column("1")).select_from(PostingRow).join(TermRow)
    of_version = col(PostingRow.version_id) == col(VersionRow.id)
    return exists(found.where(of_version, _begins(field, *range)).correlate(VersionRow))


def _base_in_scope(scope: ReadScope, term: TextTerm) -> list[SearchCondition]:
    """The condition that a version may be found by its base: the reader sees the base, or the version itself
    declares this name.
    """
    if scope.namespaces is None:
        return []
    return [SearchCondition(predicate(_declares_or_sees, scope, values=_texts(term, term.text)))]


def _declares_or_sees(scope: ReadScope, *values: Value) -> ColumnElement[bool]:
    seen = scope.base_condition()
    assert seen is not None
    name = func.coalesce(col(VersionRow.base_name), "")  # a negated NULL would match nothing
    says = _is_text(name, *values)
    unknown = col(VersionRow.base_id).not_in(select(col(BaseRow.id)).where(not_(seen)))
    return or_(says, col(VersionRow.base_id).is_(None), unknown)


def _ids_of_base(tx: Reads, scope: ReadScope, text: str) -> Sequence[str]:
    """Versions on a base. A base's name is replaced by its id, so that versions match whatever name they were
    pushed with.
    """
    kept = tx.kept("bases") if isinstance(tx, PreparedReads) else {}
    ids = kept.get((scope, text))
    if ids is None:
        rows = run_select(tx, _base_named(scope), {"name": text})
        ids = kept[scope, text] = tuple(f"sha256:{row.base_id}" for row in rows)
    return ids


@lru_cache(maxsize=64)
def _base_named(scope: ReadScope) -> Selection:
    """The base of a name, if the reader sees it."""
    named = select(col(BaseNameRow.base_id)).where(col(BaseNameRow.name) == bindparam("name"))
    if (seen := scope.base_condition()) is None:
        return named
    return named.join(BaseRow, col(BaseRow.id) == col(BaseNameRow.base_id)).where(seen)


def after(prefix: str) -> str:
    """The first text that no longer begins with `prefix`. Surrogates, which no text has, are passed over;
    after the last character of all, the character before it counts up.
    """
    kept = prefix.rstrip("\U0010ffff")
    following = ord(kept[-1]) + 1 if kept else 0x10FFFF
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)
