"""Answers by the key of their request, written in the transaction of what the request changed.

So an answer is there exactly where its change is, whatever dies in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import col

from adaptry.core.digest import Digest
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AnswerRow


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What was answered, as JSON, and to which request."""

    request: Digest
    answer: str


def find(tx: Transaction, identity: str, key: str, since: datetime) -> StoredResponse | None:
    """The answer given to that key, unless it is older than `since`."""
    row = tx.get(AnswerRow, (identity, key))
    return StoredResponse(Digest(row.request), row.answer) if row and row.given_at >= since else None


def store(
    tx: Transaction, identity: str, key: str, given: StoredResponse, at: datetime, since: datetime
) -> None:
    """Keeps an answer, and drops those that are older than `since`."""
    forget(tx, since)
    tx.add(AnswerRow(identity=identity, key=key, request=given.request.hex, answer=given.answer, given_at=at))


def forget(tx: Transaction, before: datetime) -> None:
    """Drops what was answered before that moment."""
    tx.execute(delete(AnswerRow).where(col(AnswerRow.given_at) < before))
