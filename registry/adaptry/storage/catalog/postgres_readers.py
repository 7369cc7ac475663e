"""Connections to PostgreSQL for prepared reads, without a pool of SQLAlchemy.

Threads share idle connections. A connection that a read on an event loop has used is kept for other reads on
that loop, because the loop listens to its socket (`loop_reads`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import psycopg

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.loop_reads import current_run, is_on_loop, require_thread
from adaptry.storage.catalog.postgres_pipeline import MAX_PREPARED, PreparedNames
from adaptry.storage.catalog.postgres_probe import SnapshotProbe
from adaptry.storage.catalog.postgres_reader import PostgresReader
from adaptry.storage.catalog.postgres_reads import LastStatements, PostgresReads, RepeatedPostgresReads
from adaptry.storage.catalog.prepared import ErrorTranslator

Result = TypeVar("Result")
_MAX_CONNECTIONS = 10  # connections of threads; more readers wait
_MAX_LOOP_CONNECTIONS = 6  # connections of reads on an event loop; more are run in threads


class PostgresReaders:
    """A pool of connections for prepared reads."""

    def __init__(self, connect: Callable[[], psycopg.Connection], busy_timeout: float,
                 translate_error: ErrorTranslator) -> None:  # fmt: skip
        self._connect = connect
        self._busy_timeout = busy_timeout
        self._translate_error = translate_error
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._places_on_loop = threading.BoundedSemaphore(_MAX_LOOP_CONNECTIONS)
        self._lock = threading.Lock()
        self._idle: list[PostgresReader] = []
        self._idle_on_loop: list[PostgresReader] = []
        self._names = PreparedNames()
        self._shared: dict[object, PostgresReads] = {}  # by the run whose reads share a connection
        self._last_statements = LastStatements()
        self._is_closed = False

    def read(self, *, is_search: bool = False, about: object = None) -> AbstractContextManager[PostgresReads]:
        """A transaction, in any thread; raises the errors of `Catalog.read`."""
        shared = self._shared.get(current_run())
        if shared is not None:
            return nullcontext(shared)
        if about is None or is_search:
            return self._transaction(PostgresReads(self._reader, self._translate_error, is_search=is_search))
        return self._repeated(about)

    @contextmanager
    def read_together(
        self, *, is_search: bool = False, reports_snapshot: bool = False, about: object = None
    ) -> Iterator[PostgresReads]:
        """One transaction for all that this thread, or this read on an event loop, reads during the block."""
        if is_search:  # its statements have long parameter lists, and are all different
            reads = PostgresReads(
                self._reader, self._translate_error, is_search=True, reports_snapshot=reports_snapshot
            )
            transaction = self._transaction(reads)
        else:
            transaction = self._repeated(about, reports_snapshot=reports_snapshot)
        run = current_run()
        with transaction as self._shared[run]:
            try:
                yield self._shared[run]
            finally:
                del self._shared[run]

    @contextmanager
    def _repeated(self, about: object, *, reports_snapshot: bool = False) -> Iterator[PostgresReads]:
        """A transaction that expects the statements of the last one about the same, unless that is None."""
        expected = () if about is None else self._last_statements.about(about)
        reads = RepeatedPostgresReads(
            expected, self._reader, self._translate_error, reports_snapshot=reports_snapshot
        )
        try:
            with self._transaction(reads):
                yield reads
        except BaseException:
            self._last_statements.forget(about)  # one of them may be the cause
            raise
        if about is not None:
            self._last_statements.note(about, reads.asked)

    @contextmanager
    def _transaction(self, reads: PostgresReads) -> Iterator[PostgresReads]:
        """Waits until a connection may be used."""
        places = self._places_on_loop if is_on_loop() else self._places
        if not places.acquire(blocking=False):
            require_thread()
            if not places.acquire(timeout=self._busy_timeout):
                raise Unavailable("the registry's database is overloaded; try again in a moment")
        try:
            yield reads
        finally:
            try:
                if reads.reader is not None:
                    self._release(reads.reader)
            finally:
                places.release()

    def last_commit(self) -> int | None:
        """None: PostgreSQL cannot tell without a round trip; use `open_probe`."""
        return None

    def read_with_snapshot(
        self, read: Callable[[], Result], *, is_search: bool, about: object
    ) -> tuple[Result, str | None]:
        """See `Catalog.read_with_snapshot`."""
        with self.read_together(is_search=is_search, reports_snapshot=True, about=about) as reads:
            return read(), reads.snapshot

    def open_probe(self) -> SnapshotProbe:
        """Blocks until it is connected. Raises `OSError`."""
        return SnapshotProbe(self._connect)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle = [*self._idle, *self._idle_on_loop]
            self._idle, self._idle_on_loop = [], []
        for reader in idle:
            reader.close()

    def _reader(self) -> PostgresReader:
        with self._lock:
            if self._idle_on_loop and is_on_loop():
                return self._idle_on_loop.pop()
            if self._idle:
                return self._idle.pop()
        require_thread()
        return PostgresReader(self._connect(), self._names)

    def _release(self, reader: PostgresReader) -> None:
        try:
            reader.end_transaction()
        except BaseException:  # the end of the transaction cannot be sent now
            reader.close()
            raise
        # A read on an event loop may have used any connection, and keeps it.
        idle, maximum = (
            (self._idle_on_loop, _MAX_LOOP_CONNECTIONS) if is_on_loop() else (self._idle, _MAX_CONNECTIONS)
        )
        with self._lock:
            is_kept = reader.is_usable and reader.prepared < MAX_PREPARED and len(idle) < maximum
            if is_kept and not self._is_closed:
                idle.append(reader)
                return
        reader.close()
