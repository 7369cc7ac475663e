"""The search index: the fields and texts of each version.

A version has its own terms (method, module, base, …) and its adapter's (name, tags, words, …), so that a
search reads only one ordered list. An edit of the adapter therefore rewrites terms of its versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy import and_, bindparam, delete, insert, literal, or_
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.prepared import run_select, sqlite_driver
from adaptry.storage.catalog.prepared_changes import insert_row, insert_values
from adaptry.storage.catalog.rows import PostingRow, TermRow, VersionRow
from adaptry.storage.catalog.version_info import table_of

Terms = Iterable[tuple[str, str]]
"""Pairs of field and text."""

_WORD = re.compile(r"[^\W_]+")
_IDS_AT_ONCE = 400
_TERMS, _POSTINGS = table_of(TermRow), table_of(PostingRow)
_AT_ONCE = 16  # terms in one prepared statement, as many as most versions have
_SOME = select_columns(_TERMS.c.id, _TERMS.c.field, _TERMS.c.text).where(
    or_(
        *(
            and_(_TERMS.c.field == bindparam(f"field_{number}"), _TERMS.c.text == bindparam(f"text_{number}"))
            for number in range(_AT_ONCE)
        )
    )
)


def words(text: str) -> Iterator[str]:
    """The searchable words of a text: lower case, split at everything except letters and digits."""
    yield from dict.fromkeys(_WORD.findall(text.casefold()))


def add(tx: Transaction, version: int, terms: Terms) -> None:
    """Adds terms that a version does not have yet."""
    ids = _ids(tx, terms)
    if ids:
        insert_values(tx, _POSTINGS, [{"term_id": term, "version_id": version} for term in sorted(ids)])


def remove(tx: Transaction, version: int, fields: Iterable[str], text: str | None = None) -> None:
    """Removes a version's terms of these fields (and this text, if given)."""
    gone = select(TermRow.id).where(col(TermRow.field).in_(list(fields)))
    if text is not None:
        gone = gone.where(TermRow.text == text)
    tx.execute(
        delete(PostingRow).where(col(PostingRow.version_id) == version, col(PostingRow.term_id).in_(gone))
    )


def rewrite(tx: Transaction, adapter: int, fields: Iterable[str], terms: Terms) -> None:
    """Replaces the terms of these fields on every version of an adapter."""
    versions = select(VersionRow.id).where(VersionRow.adapter_id == adapter)
    held = select(PostingRow.term_id).where(col(PostingRow.version_id).in_(versions)).distinct()
    gone = tx.exec(
        select(TermRow.id).where(col(TermRow.id).in_(held), col(TermRow.field).in_(list(fields)))
    ).all()
    if gone:
        tx.execute(
            delete(PostingRow).where(
                col(PostingRow.version_id).in_(versions), col(PostingRow.term_id).in_(gone)
            )
        )
    for term in sorted(_ids(tx, terms)):
        copies = select(literal(term), VersionRow.id).where(VersionRow.adapter_id == adapter)
        tx.execute(insert(PostingRow).from_select(["term_id", "version_id"], copies))


def _ids(tx: Transaction, terms: Terms) -> set[int]:
    """The keys of terms; adds new ones."""
    wanted = sorted(set(terms))
    found = _known(tx, wanted)
    new = [TermRow(field=field, text=text) for field, text in wanted if (field, text) not in found]
    return {*found.values(), *(insert_row(tx, row) for row in new)}


def _known(tx: Transaction, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    if sqlite_driver(tx) is not None:  # a look-up takes microseconds, and building a query longer
        return _known_prepared(tx, wanted)
    found: dict[tuple[str, str], int] = {}
    for at in range(0, len(wanted), _IDS_AT_ONCE):
        by_field = groupby(wanted[at : at + _IDS_AT_ONCE], key=itemgetter(0))
        any_of = [
            and_(col(TermRow.field) == field, col(TermRow.text).in_([text for _, text in some]))
            for field, some in by_field
        ]
        query = select(TermRow.field, TermRow.text, TermRow.id).where(or_(*any_of))
        found |= {(field, text): key for field, text, key in tx.exec(query) if key is not None}
    return found


def _known_prepared(tx: Transaction, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for at in range(0, len(wanted), _AT_ONCE):
        some = wanted[at : at + _AT_ONCE]
        # The last term is repeated up to the size of the statement.
        parameters = {}
        for number in range(_AT_ONCE):
            parameters[f"field_{number}"], parameters[f"text_{number}"] = some[min(number, len(some) - 1)]
        found |= {(row.field, row.text): row.id for row in run_select(tx, _SOME, parameters)}
    return found
