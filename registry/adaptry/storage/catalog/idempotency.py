"""Answers by idempotency key, written in the transaction of the request's change.

So an answer is stored if and only if its change is, even after a crash.
"""

from __future__ import annotations

from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, tables
from adaptry.storage.catalog.prepared_changes import insert_new

MAX_DELETED = 500
"""Maximum number of answers that one transaction deletes: 200,000 took 2 s."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A stored answer as JSON, and the digest of its request."""

    request: Digest
    answer: str


def find(tx: Transaction, identity: str, key: str, since: datetime) -> StoredResponse | None:
    """The stored answer for a key, unless it is older than `since`."""
    row = tx.get(orm.StoredResponseRow, (identity, key))
    return StoredResponse(Digest(row.request), row.answer) if row and row.given_at >= since else None


def store(
    tx: Transaction, identity: str, key: str, given: StoredResponse, at: datetime, since: datetime
) -> None:
    """Stores an answer, and deletes some of those older than `since`: more than are stored, so that they do
    not add up, but no more than other writers can wait for.
    """
    delete_older(tx, since)
    row = tables.answers
    tx.execute(row.delete().where(row.c.identity == identity, row.c.key == key))  # an older one
    values = {"identity": identity, "key": key, "request": given.request.hex}
    insert_new(tx, "answers", {**values, "answer": given.answer, "given_at": at})


def delete_older(tx: Transaction, before: datetime) -> bool:
    """Deletes at most `MAX_DELETED` answers older than that time. Returns whether there are no more."""
    row = tables.answers
    oldest = sa.select(row.c.identity, row.c.key).where(row.c.given_at < before).order_by(row.c.given_at)
    is_oldest = sa.tuple_(row.c.identity, row.c.key).in_(oldest.limit(MAX_DELETED))
    deleted = tx.execute(row.delete().where(is_oldest))
    return bool(deleted.rowcount < MAX_DELETED)  # type: ignore[attr-defined]  # a DML result has it
