"""Pending deletes: blobs without an owner that are being removed from the store.

A blob is deleted in two steps, each a transaction that checks again whether it is needed. First it is
*marked*: an upload or a new owner removes the mark. Then it is *being deleted*: it cannot be uploaded until
that is done. So bytes that are about to be deleted never get an owner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from adaptry.core.digest import Digest
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement


@statement
def _mark() -> Selection:
    table = tables.pending_deletes.c
    return sa.select(table.deleting_since).where(table.digest == sa.bindparam("digest"))


@statement
def _now_query() -> Selection:
    return sa.select(sa.func.current_timestamp(type_=orm.Moment()).label("now"))


DELETE_TIMEOUT = timedelta(seconds=120)
"""Time after which a deletion counts as abandoned: by its own clock, a process stops long before."""


def unowned(tx: Transaction, digests: Collection[Digest]) -> set[Digest]:
    """The blobs among these without an owner and without an open upload."""
    wanted = [digest.hex for digest in digests]
    had = set(tx.exec(sm.select(orm.FileRow.digest).where(sm.col(orm.FileRow.digest).in_(wanted)).distinct()))
    coming = tx.exec(
        sm.select(orm.UploadRow.digest).where(
            sm.col(orm.UploadRow.digest).in_(wanted), sm.col(orm.UploadRow.is_finished).is_(False)
        )
    )
    kept = had.union(coming)
    return {digest for digest in digests if digest.hex not in kept}


def mark_for_delete(tx: Transaction, digests: Iterable[Digest], at: datetime) -> None:
    """Marks them with the time `at`; marked ones keep their time."""
    for digest in digests:
        if tx.get(orm.PendingDeleteRow, digest.hex) is None:
            tx.add(orm.PendingDeleteRow(digest=digest.hex, since=at))
    tx.flush()


def unmark_for_delete(tx: Transaction, digest: Digest) -> None:
    """Removes the mark: the bytes have an owner again."""
    if run_select(tx, _mark, {"digest": digest.hex}):  # rare, and checking costs less than deleting
        tx.execute(sa.delete(orm.PendingDeleteRow).where(sm.col(orm.PendingDeleteRow.digest) == digest.hex))


def is_deleting(tx: Reads, digest: Digest) -> bool:
    """Whether a sweep is currently deleting these bytes."""
    return any(
        row.deleting_since is not None and row.deleting_since > _now(tx) - DELETE_TIMEOUT
        for row in run_select(tx, _mark, {"digest": digest.hex})
    )


def marked_since(tx: Transaction, digests: Collection[Digest]) -> dict[Digest, datetime]:
    """The times of the marks, by blob."""
    query = sm.select(orm.PendingDeleteRow).where(
        sm.col(orm.PendingDeleteRow.digest).in_([digest.hex for digest in digests])
    )
    return {Digest(row.digest): row.since for row in tx.exec(query)}


def due_for_delete(tx: Transaction, before: datetime, after: str, limit: int) -> Sequence[Digest]:
    """The blobs marked before that time and not being deleted, in order, after `after`."""
    query = sm.select(orm.PendingDeleteRow).where(
        orm.PendingDeleteRow.since <= before, orm.PendingDeleteRow.digest > after
    )
    has_lapsed = sm.col(orm.PendingDeleteRow.deleting_since) <= _now(tx) - DELETE_TIMEOUT
    is_free = sm.col(orm.PendingDeleteRow.deleting_since).is_(None) | has_lapsed
    rows = tx.exec(query.where(is_free).order_by(orm.PendingDeleteRow.digest).limit(limit))
    return [Digest(row.digest) for row in rows]


def start_delete(
    tx: Transaction, digests: Sequence[Digest], held: Collection[Digest]
) -> tuple[list[Digest], datetime]:
    """Claims blobs for deletion; from then on only the caller may delete them. The others lose their mark, as
    do `held` ones.
    """
    free, now = unowned(tx, digests) - set(held), _now(tx)
    for digest in set(digests) - free:
        unmark_for_delete(tx, digest)
    for digest in free:
        row = tx.get_one(orm.PendingDeleteRow, digest.hex)
        row.deleting_since = now
    return sorted(free), now


def finish_delete(tx: Transaction, digests: Collection[Digest], began: datetime) -> None:
    """Completes the deletion that began at that time: the bytes may be uploaded again."""
    mine = _marked_by(digests, began)
    tx.execute(sa.delete(orm.PendingDeleteRow).where(*mine))


def cancel_delete(tx: Transaction, digests: Collection[Digest], began: datetime) -> None:
    """Undoes `start_delete`: the blobs are marked again, as before."""
    mine = _marked_by(digests, began)
    tx.execute(sa.update(orm.PendingDeleteRow).where(*mine).values(deleting_since=None))


def _now(tx: Reads) -> datetime:
    """The time by the database's clock, the only one that all servers share."""
    (row,) = run_select(tx, _now_query, {})
    now: datetime = row.now
    return now


def _marked_by(digests: Collection[Digest], began: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        sm.col(orm.PendingDeleteRow.digest).in_([digest.hex for digest in digests]),
        sm.col(orm.PendingDeleteRow.deleting_since) == began,
    )
