"""The search index: the fields and texts of each version.

A version has its own terms (method, module, base, …) and its adapter's (name, tags, words, …), so that a
search reads only one ordered list. An edit of the adapter therefore changes terms of its versions
(`index_updates`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.storage.catalog import adapter_statements
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_new, insert_values
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns

Terms = Iterable[tuple[str, str]]
"""Pairs of field and text."""

ADAPTER_FIELDS = ("name", "namespace", "visibility", "tag", "word")
"""The fields of the search index that describe the adapter rather than the version."""
_WORD = lazy_pattern(r"[^\W_]+")
_BATCH = 16  # terms in one prepared statement, as many as most versions have


@statement
def _some() -> Selection:
    return sa.select(tables.terms.c.id, tables.terms.c.field, tables.terms.c.text).where(
        sa.or_(
            *(
                sa.and_(
                    tables.terms.c.field == sa.bindparam(f"field_{number}"),
                    tables.terms.c.text == sa.bindparam(f"text_{number}"),
                )
                for number in range(_BATCH)
            )
        )
    )


def words(text: str) -> Iterator[str]:
    """The searchable words of a text: lower case, split at everything except letters and digits."""
    yield from dict.fromkeys(_WORD.findall(text.casefold()))


def of_adapter(tx: Reads, key: int) -> list[tuple[str, str]]:
    """The terms that versions have because of the adapter with this key."""
    (row,) = run_select(tx, adapter_statements.described, {"key": key})
    return of_adapter_row(row)


def of_adapter_row(row: orm.AdapterRow | Columns) -> list[tuple[str, str]]:
    """Like `of_adapter`, for the adapter's row."""
    bare, tags = row.name.partition("/")[2], decode_list(row.tags)
    return [
        ("name", row.name),
        ("name", bare),
        ("namespace", row.namespace),
        ("visibility", row.visibility),
        *(("tag", tag) for tag in tags),
        *(("word", word) for word in words(" ".join((row.name, row.description, *tags)))),
    ]


def add(tx: Transaction, version: int, terms: Terms) -> None:
    """Adds terms that a version does not have yet."""
    keys = ids(tx, terms)
    if keys:
        insert_values(tx, "postings", [{"term_id": term, "version_id": version} for term in sorted(keys)])


def remove(tx: Transaction, version: int, fields: Iterable[str], text: str | None = None) -> None:
    """Removes a version's terms of these fields (and this text, if given)."""
    for field in fields:
        key = {"version": version, "field": field}
        if text is None:
            change(tx, _remove_field, key)
        else:
            change(tx, _remove_text, {**key, "text": text})


@statement
def _remove_field() -> sa.Delete:
    return _removal(tables.terms.c.field == sa.bindparam("field"))


@statement
def _remove_text() -> sa.Delete:
    return _removal(
        tables.terms.c.field == sa.bindparam("field"), tables.terms.c.text == sa.bindparam("text")
    )


def _removal(*of_term: sa.ColumnElement[bool]) -> sa.Delete:
    return tables.postings.delete().where(
        tables.postings.c.version_id == sa.bindparam("version"),
        tables.postings.c.term_id.in_(sa.select(tables.terms.c.id).where(*of_term)),
    )


def count_of_fields(
    tx: Transaction, versions: sa.ColumnElement[bool], fields: Iterable[str]
) -> dict[int, int]:
    """The keys of the terms of these fields that some versions have, and how many of them have each."""
    term, posting = orm.TermRow, orm.PostingRow
    held = (
        sm.select(posting.term_id, sa.func.count().label("versions"))
        .where(sm.col(posting.version_id).in_(_keys(versions)))
        .group_by(sm.col(posting.term_id))
        .subquery()
    )
    of_fields = sa.select(held.c.term_id, held.c.versions).join(term, sm.col(term.id) == held.c.term_id)
    rows = tx.execute(of_fields.where(sm.col(term.field).in_(list(fields))))
    return {row.term_id: row.versions for row in rows}


def remove_from_all(tx: Transaction, versions: sa.ColumnElement[bool], terms: Collection[int]) -> None:
    """Removes terms, by their keys, from the versions for which a condition holds."""
    if not terms:
        return
    posting = orm.PostingRow
    tx.execute(
        sa.delete(posting).where(
            sm.col(posting.version_id).in_(_keys(versions)), sm.col(posting.term_id).in_(terms)
        )
    )


def add_to_all(tx: Transaction, versions: sa.ColumnElement[bool], terms: Collection[int]) -> None:
    """Adds terms, by their keys, to those of the versions that do not have them."""
    if not terms:
        return
    term, version, posting = orm.TermRow, orm.VersionRow, orm.PostingRow
    is_there = sa.exists().where(
        sm.col(posting.term_id) == sm.col(term.id), sm.col(posting.version_id) == sm.col(version.id)
    )
    missing = (
        sm.select(term.id, version.id).join(version, versions).where(sm.col(term.id).in_(terms), ~is_there)
    )
    tx.execute(sa.insert(posting).from_select(["term_id", "version_id"], missing))


def _keys(versions: sa.ColumnElement[bool]) -> Selection:
    return sm.select(orm.VersionRow.id).where(versions)


def known_ids(tx: Transaction, terms: Terms) -> set[int]:
    """The keys of the terms that any version has or had."""
    return set(_known(tx, sorted(set(terms))).values())


def ids(tx: Transaction, terms: Terms) -> set[int]:
    """The keys of terms; adds new ones."""
    wanted = sorted(set(terms))
    found = _known(tx, wanted)
    new = [{"field": field, "text": text} for field, text in wanted if (field, text) not in found]
    return {*found.values(), *(insert_new(tx, "terms", row) for row in new)}


def _known(tx: Transaction, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for at in range(0, len(wanted), _BATCH):
        some = wanted[at : at + _BATCH]
        # The last term is repeated up to the size of the statement.
        parameters = {}
        for number in range(_BATCH):
            parameters[f"field_{number}"], parameters[f"text_{number}"] = some[min(number, len(some) - 1)]
        found |= {(row.field, row.text): row.id for row in run_select(tx, _some, parameters)}
    return found
