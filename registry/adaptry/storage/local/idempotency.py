"""Idempotency keys: a repeated request with the same key gets the first answer, and changes nothing.

The client chooses the key. Answers are kept for a day; a different request with the same key is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.value import type_adapter
from adaptry.storage.catalog import idempotency
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.idempotency import StoredResponse

Answer = TypeVar("Answer")

RETENTION = timedelta(hours=24)


def _nothing() -> None:
    """The default `on_replay`: does nothing."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request's key and digest; `on_replay` is called when a stored answer is returned again."""

    key: str
    request: Digest
    on_replay: Callable[[], None] = _nothing

    def run(
        self,
        tx: Transaction,
        principal: str,
        now: datetime,
        kind: type[Answer],
        action: Callable[[], Answer],
    ) -> Answer:
        """The answer of `action`, or the stored one of an earlier request with this key. Raises `Conflict` if
        the key was used with another request.
        """
        since = now - RETENTION
        stored = idempotency.find(tx, principal, self.key, since)
        if stored is None:
            answer = action()
            text = type_adapter(kind).dump_json(answer).decode()
            idempotency.store(tx, principal, self.key, StoredResponse(self.request, text), now, since)
            return answer
        if stored.request != self.request:
            raise Conflict(
                "this Idempotency-Key was used with another request; use a new key for every request"
            )
        self.on_replay()
        kept: Answer = type_adapter(kind).validate_json(stored.answer)
        return kept
