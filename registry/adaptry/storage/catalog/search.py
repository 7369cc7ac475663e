"""Search: a query's terms as one ordered scan of versions, newest first.

The cost must not grow with the number of versions. If fewer than `SELECTIVE` versions match a term, that term
drives the query: its versions are listed from its index, and the other terms are tested on each. Without such
a term, matches are dense, so a scan of the newest versions soon fills a page; the scan then follows the
sparsest ordered list among the terms. Versions that have one of several terms, such as the namespaces of a
reader, are in several ordered lists; these are followed together, window by window (`term_windows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlmodel import col

from adaptry.core import query
from adaptry.core.errors import Invalid, InvalidQuery
from adaptry.registry.records import Page, VersionInfo
from adaptry.storage.catalog import conditions, cursors
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.conditions import SearchCondition
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import PostingRow, VersionRow
from adaptry.storage.catalog.term_windows import TermWindows, term_windows
from adaptry.storage.catalog.version_info import by_keys
from adaptry.storage.catalog.version_lists import Keys

SELECTIVE = 2000


def search(tx: Transaction, scope: ReadScope, text: str, cursor: str | None, limit: int) -> Page[VersionInfo]:
    """The matching visible versions. Raises `InvalidQuery`."""
    about = f"search {text}"
    try:
        before = cursors.decode_number(cursor, about)
    except Invalid as error:
        raise InvalidQuery(error.message) from None
    found = plan(tx, scope, text)
    if isinstance(found, TermWindows):
        keys = found.first(tx, before, limit + 1)
    else:
        if before is not None:
            found = found.where(col(VersionRow.id) < before)
        keys = tx.execute(found.limit(limit + 1)).scalars().all()
    shown = keys[:limit]
    following = cursors.encode(shown[-1], about) if len(keys) > limit else None
    return Page[VersionInfo](items=by_keys(tx, shown), next=following)


def plan(tx: Transaction, scope: ReadScope, text: str) -> Keys | TermWindows:
    """How to find the keys of the matching visible versions, newest first. Raises `InvalidQuery`."""
    terms = query.parse(text)
    return _walk(
        tx,
        conditions.term_conditions(tx, scope, terms)
        + conditions.state_conditions(terms)
        + conditions.scope_conditions(tx, scope),
    )


def _walk(tx: Transaction, wanted: Sequence[SearchCondition]) -> Keys | TermWindows:
    """Keys of the matching versions, newest first, by the cheapest estimated plan."""
    key = col(VersionRow.id)
    statement = select(key).order_by(key.desc()).where(*(condition.test for condition in wanted))
    sparsest: tuple[int, SearchCondition, TermWindows | None] | None = None
    for condition in wanted:
        if condition.lister is None:
            continue
        reach = condition.lister.reach(tx, SELECTIVE)
        if reach is None:
            # As a list of keys: with a subquery, a planner may prefer to read all versions.
            return statement.where(key.in_(condition.lister.read(tx)))
        if condition.terms:
            windows = term_windows(tx, condition.terms)
            if windows is None:
                continue
            reach = windows.reach(SELECTIVE)
        elif not condition.lister.is_newest_first:
            continue
        if sparsest is None or reach < sparsest[0]:
            sparsest = reach, condition, windows if condition.terms else None
    if sparsest is None:
        return statement
    listed = sparsest[1].lister
    assert listed is not None
    others = [condition.test for condition in wanted if condition is not sparsest[1]]
    if sparsest[2] is not None:
        return replace(sparsest[2], tests=tuple(others))
    return (
        listed.keys.join(VersionRow, key == col(PostingRow.version_id))
        .where(*others)
        .order_by(col(PostingRow.version_id).desc())
    )
