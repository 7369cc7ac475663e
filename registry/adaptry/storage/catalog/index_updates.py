"""Changes of adapters with many versions that continue after the transaction of an edit or a deletion.

Each version has the search terms of its adapter (`terms`). With thousands of versions, an edit of the adapter
changes hundreds of thousands of rows, and other writers would wait. So its transaction only records that the
adapter is outdated. Short transactions change the terms of its versions afterwards (`complete`). Until then,
searches test these versions by their adapter's own row (`outdated_adapters`), so what they find is always up
to date. The versions of deleted adapters are removed in the same way (`removals`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog import removals, terms
from adaptry.storage.catalog.database import Catalog, Reads, Transaction
from adaptry.storage.catalog.dialect import HAS_INDEX_UPDATES
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import PreparedReads, run_select
from adaptry.storage.catalog.statement_texts import Selection

MAX_ROWS = 1000
"""Maximum number of rows of the search index that one transaction changes, unless one version needs more."""
MAX_VERSIONS = 500
"""Maximum number of versions whose terms one transaction reads."""


@dataclass(frozen=True, slots=True)
class OutdatedAdapter:
    """An adapter with versions that may lack its `new` terms, or have terms it no longer has; `terms` are all
    that it has now.
    """

    key: int
    terms: frozenset[tuple[str, str]]
    new: frozenset[tuple[str, str]]


def replace_terms(
    tx: Transaction, adapter: int, old: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]]
) -> None:
    """Replaces the terms `old` of an adapter's versions by `new`, now or after this transaction."""
    was, becomes = set(old), set(new)
    changed = was ^ becomes
    if not changed:
        return
    query = sm.select(orm.AdapterRow.version_count, orm.AdapterRow.next_number)
    count, following = tx.exec(query.where(orm.AdapterRow.id == adapter)).one()
    row = tx.get(orm.IndexUpdateRow, adapter)
    if row is None and count * len(changed) <= MAX_ROWS:
        versions = sm.col(orm.VersionRow.adapter_id) == adapter
        terms.remove_from_all(tx, versions, terms.known_ids(tx, was - becomes))
        terms.add_to_all(tx, versions, terms.ids(tx, becomes - was))
        return
    earlier = _decode(row.new_terms) if row else frozenset()
    row = row or orm.IndexUpdateRow(adapter_id=adapter, below=0, new_terms="")
    row.below, row.new_terms = following, json.dumps(sorted((earlier & becomes) | (becomes - was)))
    tx.add(row)
    tx.flush()
    tx.info[HAS_INDEX_UPDATES] = True


def is_outdated(tx: Transaction, adapter: int) -> bool:
    return tx.get(orm.IndexUpdateRow, adapter) is not None


def outdated_adapters(tx: Reads) -> Sequence[OutdatedAdapter]:
    """All adapters with outdated terms, of which there are hardly ever any. Cached until the next commit."""
    return _unfinished(tx)[0]


def removed_adapters(tx: Reads) -> Sequence[int]:
    """The keys of the deleted adapters that still have versions. Cached in the same way."""
    return _unfinished(tx)[1]


def _unfinished(tx: Reads) -> tuple[Sequence[OutdatedAdapter], Sequence[int]]:
    kept = tx.kept("index updates") if isinstance(tx, PreparedReads) else {}
    found: tuple[Sequence[OutdatedAdapter], Sequence[int]] | None = kept.get("all")
    if found is None:
        rows = run_select(tx, _unfinished_rows(), {})
        outdated = tuple(
            OutdatedAdapter(row.adapter_id, frozenset(terms.of_adapter_row(row)), _decode(row.new_terms))
            for row in rows
            if row.new_terms is not None
        )
        found = kept["all"] = outdated, tuple(row.adapter_id for row in rows if row.new_terms is None)
    return found


def complete(catalog: Catalog, may_continue: Callable[[], bool] = lambda: True) -> None:
    """Completes all updates and removals, while `may_continue`. After each transaction it waits for as long
    as that took, so that writers of other processes have their turn. Raises `Unavailable`, `StorageFull`.
    """
    with catalog.read_prepared() as reads:
        outdated, removed = _unfinished(reads)
    steps = [
        *((_continue, one.key) for one in outdated),
        *((removals.continue_removal, key) for key in removed),
    ]
    for step, key in steps:
        is_complete = False
        while not is_complete and may_continue():
            began = time.monotonic()
            # If a power failure undoes it, its progress is undone with it.
            with catalog.write_nondurable() as tx:
                is_complete = step(tx, key)
            time.sleep(time.monotonic() - began)


def _continue(tx: Transaction, adapter: int) -> bool:
    """Updates the next versions, in order of descending numbers. Returns whether all are up to date."""
    row = tx.get(orm.IndexUpdateRow, adapter)
    if row is None:
        return True
    rows = [(one.number, one.id) for one in tx.execute(next_versions(adapter, row.below))]
    is_last = len(rows) < MAX_VERSIONS
    if rows:
        wanted = terms.ids(tx, terms.of_adapter(tx, adapter))
        held = terms.count_of_fields(tx, _among(rows), terms.ADAPTER_FIELDS)
        excess = held.keys() - wanted
        missing = {term for term in wanted if held.get(term, 0) < len(rows)}
        maximum = max(1, MAX_ROWS // max(1, len(excess) + len(missing)))
        if maximum < len(rows):
            rows, is_last = rows[:maximum], False
        terms.remove_from_all(tx, _among(rows), excess)
        terms.add_to_all(tx, _among(rows), missing)
        row.below = rows[-1][0]
    if is_last:
        tx.delete(row)
    return is_last


def next_versions(adapter: int, below: int) -> Selection:
    """The numbers and keys of the versions to be updated next, in descending order."""
    columns = tables.versions.c
    return (
        sa.select(columns.number, columns.id)
        .where(columns.adapter_id == adapter, columns.number < below)
        .order_by(columns.number.desc())
        .limit(MAX_VERSIONS)
    )


def _among(rows: Sequence[tuple[int, int]]) -> sa.ColumnElement[bool]:
    """Selects versions by a list of keys: for a range of numbers, PostgreSQL could estimate that it is most
    of the table.
    """
    return sm.col(orm.VersionRow.id).in_([key for _, key in rows])


@cache
def _unfinished_rows() -> Any:
    """Both kinds in one statement, since every search asks. (`Any`: a union, typed by its columns.)"""
    described = [
        tables.adapters.c[name] for name in ("name", "namespace", "description", "tags", "visibility")
    ]
    updates = tables.index_updates.c
    outdated = sa.select(updates.adapter_id, updates.new_terms, *described).join(
        tables.adapters, tables.adapters.c.id == updates.adapter_id
    )
    removed = sa.select(tables.adapters.c.id, sa.null(), *described).where(orm.HAS_REMOVAL)
    return sa.union_all(outdated, removed)


def _decode(text: str) -> frozenset[tuple[str, str]]:
    return frozenset((field, term) for field, term in json.loads(text))
