"""Search: a query's terms as one ordered scan of versions, newest first.

The cost must not grow with the number of versions. If fewer than `SELECTIVE` versions match a term, that term
drives the query: its versions are listed from its index, and the other terms are tested on each. Without such
a term, matches are dense, so a scan of the newest versions soon fills a page; the scan then follows the
sparsest ordered list among the terms.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlmodel import col

from adaptry.core import query
from adaptry.core.errors import Invalid, InvalidQuery
from adaptry.registry.records import Page, VersionInfo
from adaptry.storage.catalog import conditions, cursors
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.conditions import Keys, SearchCondition
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import PostingRow, VersionRow
from adaptry.storage.catalog.version_info import by_keys

SELECTIVE = 2000


def search(tx: Transaction, scope: ReadScope, text: str, cursor: str | None, limit: int) -> Page[VersionInfo]:
    """The matching visible versions. Raises `InvalidQuery`."""
    about = f"search {text}"
    try:
        before = cursors.decode_number(cursor, about)
    except Invalid as error:
        raise InvalidQuery(error.message) from None
    keys_found = statement(tx, scope, text)
    if before is not None:
        keys_found = keys_found.where(col(VersionRow.id) < before)
    keys = tx.execute(keys_found.limit(limit + 1)).scalars().all()
    shown = keys[:limit]
    following = cursors.encode(shown[-1], about) if len(keys) > limit else None
    return Page[VersionInfo](items=by_keys(tx, shown), next=following)


def statement(tx: Transaction, scope: ReadScope, text: str) -> Keys:
    """Selects the keys of the matching visible versions, newest first. Raises `InvalidQuery`."""
    terms = query.parse(text)
    return _walk(
        tx,
        conditions.term_conditions(tx, scope, terms)
        + conditions.state_conditions(terms)
        + conditions.scope_conditions(tx, scope),
    )


def _walk(tx: Transaction, wanted: Sequence[SearchCondition]) -> Keys:
    """Keys of the matching versions, newest first, by the cheapest estimated plan."""
    key = col(VersionRow.id)
    statement = select(key).order_by(key.desc()).where(*(condition.test for condition in wanted))
    sparsest: tuple[int, SearchCondition] | None = None
    for condition in wanted:
        if condition.lister is None:
            continue
        reach = _reach(tx, condition.lister, condition.is_newest_first)
        if reach is None:
            # As a list of keys: with a subquery, a planner may prefer to read all versions.
            return statement.where(key.in_(tx.execute(condition.lister).scalars().all()))
        if condition.is_newest_first and (sparsest is None or reach < sparsest[0]):
            sparsest = reach, condition
    if sparsest is None:
        return statement
    listed = sparsest[1].lister
    assert listed is not None
    others = [condition.test for condition in wanted if condition is not sparsest[1]]
    return (
        listed.join(VersionRow, key == col(PostingRow.version_id))
        .where(*others)
        .order_by(col(PostingRow.version_id).desc())
    )


def _reach(tx: Transaction, lister: Keys, is_newest_first: bool) -> int | None:
    """None if the lister is selective; else the key of its `SELECTIVE`-th newest version (if it is ordered):
    the smaller, the sparser.
    """
    if is_newest_first:
        lister = lister.order_by(col(PostingRow.version_id).desc())
    return tx.execute(lister.offset(SELECTIVE - 1).limit(1)).scalar()
