"""A connection to PostgreSQL for read-only transactions.

The beginning of a transaction travels with its first statements, and its end is not waited for, so a read of
one statement is one round trip to the server (`postgres_pipeline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg.pq import ExecStatus

from adaptry.storage.catalog.postgres_pipeline import Pipeline, PostgresStatement, PreparedNames

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGresult

_BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PLAN_EACH = b"SET LOCAL plan_cache_mode TO force_custom_plan"
"""For searches: which index is best depends on the values. By default, PostgreSQL plans a statement five
times, and from then on may use a generic plan, which reads all versions with a common term.
"""
_MAX_CACHED = 1024  # values of a kind
Sent: TypeAlias = "tuple[PostgresStatement, Sequence[Buffer | None]]"
"""A statement, and its parameters in PostgreSQL's form."""


class PostgresReader(Pipeline):
    """A connection for read-only transactions."""

    def __init__(self, connection: psycopg.Connection, names: PreparedNames) -> None:
        """`connection` is in autocommit mode."""
        super().__init__(connection, names)
        self._kept: dict[str, dict[Any, Any]] = {}
        self._kept_of = ""  # the snapshot from which it was computed
        self._is_begun = False
        self.is_new = True

    def run(self, sent: Sequence[Sent]) -> list[PGresult]:
        """The rows of each statement, in the transaction."""
        for compiled, values in sent:
            self.send(compiled, values)
        results = self.receive_all()
        self._is_begun = True
        if len(results) == len(sent):
            return results
        # Others are the answers to BEGIN and to the preparation of statements.
        return [result for result in results if result.status == ExecStatus.TUPLES_OK]

    def begin(self, *, is_search: bool) -> None:
        """Begins a transaction with the next statement."""
        self.send_text(_BEGIN)
        if is_search:
            self.send_text(_PLAN_EACH)

    def kept(self, snapshot: str, kind: str) -> dict[Any, Any]:
        """A place for values that were computed from a snapshot. (`Any`: of this kind.)"""
        if snapshot != self._kept_of:
            self._kept, self._kept_of = {}, snapshot
        kept = self._kept.setdefault(kind, {})
        if len(kept) > _MAX_CACHED:
            kept.clear()
        return kept

    def end_transaction(self) -> None:
        """Ends the transaction, without waiting for the answer."""
        if not (self.is_usable and self._is_begun):
            return
        try:
            self.send_text(b"COMMIT")
            self.end()
        except psycopg.Error:
            self.is_usable = False
        self._is_begun = self.is_new = False
