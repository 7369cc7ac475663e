"""Prepared reads on PostgreSQL: the statements of nearly every request, without a session or a pool.

The beginning of a transaction travels with its first statement, and its end is not waited for, so a read of
one statement is one round trip to the server (`postgres_pipeline`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg
from psycopg.pq import ExecStatus
from sqlalchemy import String, literal_column, select

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.loop_reads import is_on_loop, require_thread
from adaptry.storage.catalog.postgres_pipeline import (
    MOST_PREPARED,
    Pipeline,
    PostgresStatement,
    PreparedNames,
    is_stale,
    postgres_statement,
)
from adaptry.storage.catalog.postgres_probe import SNAPSHOT, SnapshotProbe
from adaptry.storage.catalog.prepared import ErrorTranslator, PreparedReads, Query, key_of

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGresult

Result = TypeVar("Result")
_MOST = 10  # connections; more readers wait
_BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PLAN_EACH = b"SET LOCAL plan_cache_mode TO force_custom_plan"
"""For searches: which index is best depends on the values. By default, PostgreSQL plans a statement five
times, and from then on may use a generic plan, which reads all versions with a common term.
"""
_MOST_KEPT = 1024  # values of a kind
_MOST_REPEATED = 1024  # subjects of reads whose statements are remembered
_MOST_EXPECTED = 24  # statements of one of them
_LONGEST = 256  # characters or elements of a parameter
_Sent: TypeAlias = "tuple[PostgresStatement, Sequence[Buffer | None]]"
"""A statement, and its parameters in PostgreSQL's form."""
_SNAPSHOT = select(literal_column(SNAPSHOT, String).label("snapshot"))


class PostgresReads(PreparedReads):
    """A read-only transaction of prepared reads, on a snapshot, which begins with the first of them."""

    is_postgres = True

    def __init__(
        self,
        open_reader: Callable[[], _Reader],
        translate_error: ErrorTranslator,
        *,
        is_search: bool = False,
        tells_snapshot: bool = False,
    ) -> None:
        """`tells_snapshot`: whether the first statement also reads the snapshot, for `snapshot`."""
        self._open = open_reader
        self._is_search = is_search
        self._tells_snapshot = tells_snapshot
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

    @property
    def snapshot(self) -> str | None:
        """As a `SnapshotProbe` reports it, if `tells_snapshot`; None if nothing has been read."""
        return self._snapshot

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        return self.select_all([(statement, parameters)])[0]

    def select_all(self, asked: Sequence[tuple[Query, Mapping[str, object]]]) -> list[Sequence[Any]]:
        """The rows of several statements with their parameters, in one round trip."""
        compiled = [postgres_statement(statement) for statement, _ in asked]
        values = [one.values(given) for one, (_, given) in zip(compiled, asked, strict=True)]
        sent = list(zip(compiled, values, strict=True))
        try:
            if self.reader is None:
                self.reader, results = self._begun(sent)
            else:
                results = self.reader.run(sent)
            loader = self.reader.loader
            return [one.rows(loader, result) for one, result in zip(compiled, results, strict=True)]
        except psycopg.Error as error:
            if self.reader is not None and self.reader.lost_a_name(error):
                raise Unavailable(
                    "the pooler in front of PostgreSQL loses prepared statements; try again"
                ) from error
            raise self._translate_error(error) or error from error

    def _begun(self, sent: Sequence[_Sent]) -> tuple[_Reader, Sequence[PGresult]]:
        """Begins with the first statements. A connection that broke while it was idle is replaced."""
        while True:
            reader = self._open()
            try:
                reader.begin(is_search=self._is_search)
                if not self._tells_snapshot:
                    return reader, reader.run(sent)
                first, *results = reader.run([(postgres_statement(_SNAPSHOT), ()), *sent])
                self._snapshot = (first.get_value(0, 0) or b"").decode()
                return reader, results
            except psycopg.Error as error:
                reader.close()
                if not reader.lost_a_name(error) and (reader.is_new or not is_stale(error)):
                    raise
            except BaseException:  # it goes on in a thread, or its request was cancelled
                reader.close()
                raise


class _SharedPostgresReads(PostgresReads):
    """A transaction for several functions: equal statements run once, since their rows cannot differ. With
    the first statement, it sends all `expected` ones.
    """

    def __init__(self, *of_transaction: Any, **options: Any) -> None:
        """(`Any`: the arguments of `PostgresReads`.)"""
        super().__init__(*of_transaction, **options)
        self._results: dict[tuple[Any, ...], Sequence[Any]] = {}
        self.expected: Sequence[tuple[Any, ...]] = ()
        self.asked: dict[tuple[Any, ...], None] = {}

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        """(`Any`: named tuples of the statement's columns.)"""
        if self.expected:
            expected, self.expected = self.expected, ()
            self._results.update(zip(expected, self.select_all(list(map(_asked, expected))), strict=True))
        key = key_of(statement, parameters)
        self.asked[key] = None
        rows = self._results.get(key)
        if rows is None:
            rows = self._results[key] = super().select(statement, parameters)
        return rows


def _asked(key: tuple[Any, ...]) -> tuple[Query, dict[str, object]]:
    """The statement and the parameters of a key."""
    count = len(key) // 2
    return key[0], dict(zip(key[1 : count + 1], key[count + 1 :], strict=True))


_shared: ContextVar[tuple[PostgresReaders, PostgresReads] | None] = ContextVar("shared reads", default=None)
"""The transaction of `read_together` in the current thread, or in the current read on an event loop."""


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
        self._idle_on_loop: list[_Reader] = []
        self._names = PreparedNames()
        self._last_asked: dict[object, tuple[tuple[Any, ...], ...]] = {}
        self._is_closed = False

    def read(self, *, is_search: bool = False, about: object = None) -> AbstractContextManager[PostgresReads]:
        """A transaction, in any thread; raises the errors of `Catalog.read`."""
        shared = _shared.get()
        if shared is not None and shared[0] is self:
            return nullcontext(shared[1])
        if about is not None:
            return self._repeated(about, _SharedPostgresReads(self._reader, self._translate_error))
        return self._transaction(PostgresReads(self._reader, self._translate_error, is_search=is_search))

    @contextmanager
    def read_together(
        self, *, is_search: bool = False, tells_snapshot: bool = False, about: object = None
    ) -> Iterator[PostgresReads]:
        """One transaction for all that this thread reads during the block."""
        reads = _SharedPostgresReads(
            self._reader, self._translate_error, is_search=is_search, tells_snapshot=tells_snapshot
        )
        with self._repeated(about, reads):
            token = _shared.set((self, reads))
            try:
                yield reads
            finally:
                _shared.reset(token)

    @contextmanager
    def _repeated(self, about: object, reads: _SharedPostgresReads) -> Iterator[PostgresReads]:
        """A transaction that expects the statements of the last one about the same."""
        if about is not None:
            reads.expected = self._last_asked.get(about, ())
        with self._transaction(reads):
            yield reads
        if about is not None and _may_be_repeated(reads.asked):
            if len(self._last_asked) >= _MOST_REPEATED:
                self._last_asked.clear()
            self._last_asked[about] = tuple(reads.asked)

    @contextmanager
    def _transaction(self, reads: PostgresReads) -> Iterator[PostgresReads]:
        if not self._places.acquire(blocking=False):
            require_thread()
            if not self._places.acquire(timeout=self._busy_timeout):
                raise Unavailable("the registry's database is overloaded; try again in a moment")
        try:
            yield reads
        finally:
            try:
                if reads.reader is not None:
                    self._give_back(reads.reader)
            finally:
                self._places.release()

    def last_commit(self) -> int | None:
        """None: PostgreSQL cannot tell without a round trip; use `open_probe`."""
        return None

    def read_with_snapshot(
        self, read: Callable[[], Result], *, is_search: bool, about: object
    ) -> tuple[Result, str | None]:
        """As `Catalog.read_with_snapshot`."""
        with self.read_together(is_search=is_search, tells_snapshot=True, about=about) as reads:
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

    def _reader(self) -> _Reader:
        with self._lock:
            if self._idle_on_loop and is_on_loop():
                return self._idle_on_loop.pop()
            if self._idle:
                return self._idle.pop()
        require_thread()
        return _Reader(self._connect(), self._names)

    def _give_back(self, reader: _Reader) -> None:
        reader.end_transaction()
        with self._lock:
            count = len(self._idle) + len(self._idle_on_loop)
            if reader.is_usable and reader.prepared < MOST_PREPARED and not self._is_closed and count < _MOST:
                # A read on an event loop may have used any connection, and keeps it.
                (self._idle_on_loop if is_on_loop() else self._idle).append(reader)
                return
        reader.close()


def _may_be_repeated(asked: Collection[tuple[Any, ...]]) -> bool:
    """Whether the statements and their parameters are few and short."""
    return len(asked) <= _MOST_EXPECTED and not any(
        isinstance(value, Sized) and len(value) > _LONGEST for key in asked for value in key[1:]
    )


class _Reader(Pipeline):
    """A connection for read-only transactions."""

    def __init__(self, connection: psycopg.Connection, names: PreparedNames) -> None:
        """`connection` commits by itself."""
        super().__init__(connection, names)
        self._kept: dict[str, dict[Any, Any]] = {}
        self._kept_of = ""  # the snapshot from which it was computed
        self._is_begun = False
        self.is_new = True

    def run(self, sent: Sequence[_Sent]) -> list[PGresult]:
        """The rows of each statement, in the transaction."""
        for compiled, values in sent:
            self.send(compiled, values)
        results = self.receive_all()
        self._is_begun = True
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
