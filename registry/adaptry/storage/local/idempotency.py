"""Doing a thing once, however often a caller who lost the answer asks for it.

A request may carry a key that its caller made up. For a day, the same request with the same key gets the answer of
the first; another request with that key is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.storage.catalog import idempotency
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.idempotency import StoredResponse

Answer = TypeVar("Answer")

KEPT = timedelta(hours=24)


def _nothing() -> None:
    """Who asks without a key is never told that they asked before."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request's key and what it asks for; `on_replay` is told when an earlier answer is given again."""

    key: str
    request: Digest
    on_replay: Callable[[], None] = _nothing

    def run(
        self,
        tx: Transaction,
        who: str,
        now: datetime,
        kind: TypeAdapter[Answer],
        action: Callable[[], Answer],
    ) -> Answer:
        """What `action` answers, or answered. Raises `Conflict` where the key came with another request."""
        since = now - KEPT
        given = idempotency.find(tx, who, self.key, since)
        if given is None:
            answer = action()
            text = kind.dump_json(answer).decode()
            idempotency.store(tx, who, self.key, StoredResponse(self.request, text), now, since)
            return answer
        if given.request != self.request:
            raise Conflict(
                "this Idempotency-Key came with another request before; make a new key for every new request"
            )
        self.on_replay()
        return kind.validate_json(given.answer)
