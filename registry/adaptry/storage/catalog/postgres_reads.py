"""Prepared reads on PostgreSQL: the statements of nearly every request, without a session or a pool.

The beginning of a transaction travels with its first statement, and its end is not waited for, so a read of
one statement is one round trip to the server (`postgres_pipeline`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import String, literal_column, select

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.postgres_pipeline import (
    MOST_PREPARED,
    Pipeline,
    PostgresStatement,
    PreparedNames,
    is_stale,
    postgres_statement,
)
from adaptry.storage.catalog.postgres_probe import SNAPSHOT, SnapshotProbe
from adaptry.storage.catalog.prepared import ErrorTranslator, PreparedReads, Query, ResultsOfEqualStatements

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGresult

_MOST = 10  # connections; more readers wait
_BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PLAN_EACH = b"SET LOCAL plan_cache_mode TO force_custom_plan"
"""For searches: which index is best depends on the values. By default, PostgreSQL plans a statement five
times, and from then on may use a generic plan, which reads all versions with a common term.
"""
_MOST_KEPT = 1024  # values of a kind
_SNAPSHOT = select(literal_column(SNAPSHOT, String).label("snapshot"))


class PostgresReads(PreparedReads):
    """A read-only transaction of prepared reads, on a snapshot, which begins with the first of them."""

    is_postgres = True

    def __init__(
        self, open_reader: Callable[[], _Reader], translate_error: ErrorTranslator, *, is_search: bool = False
    ) -> None:
        self._open = open_reader
        self._is_search = is_search
        self._translate_error = translate_error
        self.reader: _Reader | None = None
        self._snapshot: str | None = None

    def kept(self, kind: str) -> dict[Any, Any]:
        """As in `PreparedReads`; PostgreSQL's own snapshot shows whether it equals an earlier one.

        (`Any`: keys and values of this kind.)
        """
        if self._snapshot is None:
            ((self._snapshot,),) = self.select(_SNAPSHOT, {})
        assert self.reader is not None and self._snapshot is not None
        return self.reader.kept(self._snapshot, kind)

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        compiled = postgres_statement(statement)
        values = compiled.values(parameters)
        try:
            if self.reader is None:
                self.reader, result = self._begun(compiled, values)
            else:
                result = self.reader.run(compiled, values)
            return compiled.rows(self.reader.loader, result)
        except psycopg.Error as error:
            if self.reader is not None and self.reader.lost_a_name(error):
                raise Unavailable(
                    "the pooler in front of PostgreSQL loses prepared statements; try again"
                ) from error
            raise self._translate_error(error) or error from error

    def _begun(
        self, compiled: PostgresStatement, values: Sequence[Buffer | None]
    ) -> tuple[_Reader, PGresult]:
        """Begins with the first statement. A connection that broke while it was idle is replaced."""
        while True:
            reader = self._open()
            try:
                reader.begin(is_search=self._is_search)
                return reader, reader.run(compiled, values)
            except psycopg.Error as error:
                reader.close()
                if not reader.lost_a_name(error) and (reader.is_new or not is_stale(error)):
                    raise


class _SharedPostgresReads(ResultsOfEqualStatements, PostgresReads):
    """A transaction for several functions."""


class PostgresReaders:
    """Connections for prepared reads, at most `_MOST`."""

    def __init__(self, connect: Callable[[], psycopg.Connection], busy_timeout: float,
                 translate_error: ErrorTranslator) -> None:  # fmt: skip
        self._connect = connect
        self._busy_timeout = busy_timeout
        self._translate_error = translate_error
        self._places = threading.BoundedSemaphore(_MOST)
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []
        self._names = PreparedNames()
        self._shared = threading.local()
        self._is_closed = False

    def read(self, *, is_search: bool = False) -> AbstractContextManager[PostgresReads]:
        """A transaction, in any thread; raises the errors of `Catalog.read`."""
        shared: PostgresReads | None = getattr(self._shared, "reads", None)
        if shared is not None:
            return nullcontext(shared)
        return self._transaction(PostgresReads(self._reader, self._translate_error, is_search=is_search))

    @contextmanager
    def read_together(self) -> Iterator[None]:
        """One transaction for all that this thread reads during the block."""
        with self._transaction(_SharedPostgresReads(self._reader, self._translate_error)) as reads:
            self._shared.reads = reads
            try:
                yield
            finally:
                self._shared.reads = None

    @contextmanager
    def _transaction(self, reads: PostgresReads) -> Iterator[PostgresReads]:
        if not self._places.acquire(timeout=self._busy_timeout):
            raise Unavailable("the registry's database is overloaded; try again in a moment")
        try:
            yield reads
        finally:
            if reads.reader is not None:
                self._give_back(reads.reader)
            self._places.release()

    def last_commit(self) -> int | None:
        """None: PostgreSQL cannot tell without a round trip; use `open_probe`."""
        return None

    def open_probe(self) -> SnapshotProbe:
        """Blocks until it is connected. Raises `OSError`."""
        return SnapshotProbe(self._connect)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    def _reader(self) -> _Reader:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Reader(self._connect(), self._names)

    def _give_back(self, reader: _Reader) -> None:
        reader.end_transaction()
        with self._lock:
            if reader.is_usable and reader.prepared < MOST_PREPARED and not self._is_closed:
                self._idle.append(reader)
                return
        reader.close()


class _Reader(Pipeline):
    """A connection for read-only transactions."""

    def __init__(self, connection: psycopg.Connection, names: PreparedNames) -> None:
        """`connection` commits by itself."""
        super().__init__(connection, names)
        self._kept: dict[str, dict[Any, Any]] = {}
        self._kept_of = ""  # the snapshot from which it was computed
        self._is_begun = False
        self.is_new = True

    def run(self, compiled: PostgresStatement, values: Sequence[Buffer | None]) -> PGresult:
        """The rows of a statement in the transaction."""
        self.send(compiled, values)
        result = self.receive()
        self._is_begun = True
        return result

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
        if len(kept) > _MOST_KEPT:
            kept.clear()
        return kept

    def end_transaction(self) -> None:
        """Ends it, without waiting for the answer."""
        if not (self.is_usable and self._is_begun):
            return
        try:
            self.send_text(b"COMMIT")
            self.end()
        except psycopg.Error:
            self.is_usable = False
        self._is_begun = self.is_new = False
