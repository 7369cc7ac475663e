"""Conditions on texts: words, fields of the search index, digests, and workers that have loaded a version."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, literal_column, not_, or_, select
from sqlalchemy.orm import Mapped
from sqlmodel import col

from adaptry.core.query_terms import TextTerm, WordTerm
from adaptry.storage.catalog import terms
from adaptry.storage.catalog.access import EVERYTHING, ReadScope
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.prepared import run_select
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
from adaptry.storage.catalog.version_lists import Keys, VersionList

_MOST_TERMS = 20
_TERM = select(col(TermRow.id)).where(
    col(TermRow.field) == bindparam("field"), col(TermRow.text) == bindparam("text")
)
_BASE_NAMED = select(col(BaseNameRow.base_id)).where(col(BaseNameRow.name) == bindparam("name"))
_LICENCE_TAG = "license:"
"""A licence is a tag, as on the Hub: what a model card states becomes `license:mit`."""


def word(tx: Transaction, term: WordTerm) -> SearchCondition:
    """A word may end in `*`; one that the index splits (`multi-lingual`) requires all parts."""
    parts = list(terms.words(term.text))
    if not parts:
        return NOTHING
    begins = term.text.endswith("*")
    return all_of([_indexed(tx, "word", part, is_prefix=begins and part == parts[-1]) for part in parts])


def text(tx: Transaction, scope: ReadScope, term: TextTerm) -> SearchCondition:
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


def any_text(tx: Transaction, field: str) -> SearchCondition:
    """Versions that have any text of a field."""
    if field == "licence":
        return _indexed(tx, "tag", _LICENCE_TAG, is_prefix=True)
    return _indexed(tx, field, "", is_prefix=True)


def _indexed(
    tx: Transaction, field: str, text: str, is_prefix: bool = False, scope: ReadScope = EVERYTHING
) -> SearchCondition:
    if not is_prefix:
        texts = [text, *(_ids_of_base(tx, scope, text) if field == "base" else ())]
        found = [run_select(tx, _TERM, {"field": field, "text": one}) for one in texts]
        return with_any_term([row.id for rows in found for row in rows])
    matching = and_(col(TermRow.field) == field, *_begins_with(text))
    keys = list(tx.execute(select(col(TermRow.id)).where(matching).limit(_MOST_TERMS + 1)).scalars())
    if len(keys) <= _MOST_TERMS:
        return with_any_term([key for key in keys if key is not None])
    # Joined, so that the first versions are found without collecting all terms.
    lister = (
        select(col(PostingRow.version_id))
        .select_from(TermRow)
        .join(PostingRow, col(PostingRow.term_id) == col(TermRow.id))
        .where(matching)
    )
    within: tuple[int, ...] = ()
    if field == "name" and "/" in text:  # all in one namespace, which has a list in the order of keys
        of_namespace = {"field": "namespace", "text": text.partition("/")[0]}
        within = tuple(row.id for row in run_select(tx, _TERM, of_namespace))
    return SearchCondition(_has_text(field, text), VersionList(lister), within)


def _begins_with(text: str) -> list[ColumnElement[bool]]:
    return [col(TermRow.text) >= text, col(TermRow.text) < after(text)] if text else []


def _revision(term: TextTerm) -> SearchCondition:
    """Versions of one revision, under any name; uses the digest column, not a term."""
    column, hex = col(VersionRow.digest), term.text.removeprefix("sha256:")
    holds = (column >= hex) & (column < after(hex)) if term.is_prefix else column == hex
    return SearchCondition(holds, VersionList(select(col(VersionRow.id)).where(holds)))


def _loaded(term: TextTerm) -> SearchCondition:
    """Versions that a worker, or an engine of that name, has loaded, as last reported.

    A worker that is no longer heard of counts, since its engine may still serve; one declared gone does not.
    """
    columns = (col(WorkerRow.name), col(WorkerRow.engine))
    is_named = [or_(*(_is_text(column, term) for column in columns))] if term.text else []
    here = and_(LOADED, col(WorkerRow.gone_at).is_(None), *is_named)
    of_worker = col(ResidentRow.worker_id) == col(WorkerRow.id)
    rows: Keys = select(literal_column("1")).select_from(ResidentRow).join(WorkerRow, of_worker)
    test = exists(rows.where(col(ResidentRow.version_id) == col(VersionRow.id), here).correlate(VersionRow))
    keys: Keys = select(col(ResidentRow.version_id)).select_from(ResidentRow).join(WorkerRow, of_worker)
    return SearchCondition(test, VersionList(keys.where(here)))


def _is_text(column: Mapped[str], term: TextTerm) -> ColumnElement[bool]:
    if not term.is_prefix:
        return column == term.text
    return and_(column >= term.text, column < after(term.text))


def _has_text(field: str, text: str) -> ColumnElement[bool]:
    """The condition that a version has one of many texts with the same prefix; looked up by version, since
    there are many texts.
    """
    if field in ("name", "namespace"):
        name, namespace = col(AdapterRow.name), col(AdapterRow.namespace)
        bare = func.substr(name, func.length(namespace) + 2)
        columns = (name, bare) if field == "name" else (namespace,)
        fits = or_(*(and_(column >= text, column < after(text)) for column in columns))
        return has_row(AdapterRow, (col(AdapterRow.id) == col(VersionRow.adapter_id)) & fits)
    found: Keys = select(literal_column("1")).select_from(PostingRow).join(TermRow)
    of_version = col(PostingRow.version_id) == col(VersionRow.id)
    return exists(
        found.where(of_version, col(TermRow.field) == field, *_begins_with(text)).correlate(VersionRow)
    )


def _base_in_scope(scope: ReadScope, term: TextTerm) -> list[SearchCondition]:
    """The condition that a version may be found by its base: the reader sees the base, or the version itself
    declares this name.
    """
    seen = scope.base_condition()
    if seen is None:
        return []
    name = func.coalesce(col(VersionRow.base_name), "")  # a negated NULL would match nothing
    says = (name >= term.text) & (name < after(term.text)) if term.is_prefix else name == term.text
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


def after(prefix: str) -> str:
    """The first text that no longer begins with `prefix`. Surrogates, which no text has, are passed over;
    after the last character of all, the character before it counts up.
    """
    kept = prefix.rstrip("\U0010ffff")
    following = ord(kept[-1]) + 1 if kept else 0x10FFFF
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)
