"""Answers by idempotency key, written in the transaction of the request's change.

So an answer is stored if and only if its change is, even after a crash.
"""

from __future__ import annotations

from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm


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
    """Stores an answer, and deletes those older than `since`."""
    delete_older(tx, since)
    tx.add(
        orm.StoredResponseRow(
            identity=identity, key=key, request=given.request.hex, answer=given.answer, given_at=at
        )
    )


def delete_older(tx: Transaction, before: datetime) -> None:
    """Deletes answers older than that time."""
    tx.execute(sa.delete(orm.StoredResponseRow).where(sm.col(orm.StoredResponseRow.given_at) < before))
