"""Prepared reads on PostgreSQL: the statements of nearly every request, without a session or a pool.

A statement is compiled once, to PostgreSQL's own text, and prepared once on each connection. The beginning of
a transaction travels with its first statement, and its end is not waited for, so a read of one statement is
one round trip to the server. A thread that waits for an answer does not hold the interpreter.
"""

from __future__ import annotations

import select
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from sqlalchemy import String, literal_column
from sqlalchemy import select as sql_select
from sqlalchemy.dialects.postgresql import asyncpg  # writes `$1`, as the protocol has it; imports no driver

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.postgres_probe import SnapshotProbe
from adaptry.storage.catalog.prepared import ErrorTranslator, PreparedReads, Query, definition_of
from adaptry.storage.catalog.rows import Moment

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.abc import Transformer as Loader
    from psycopg.pq.abc import PGresult

_MOST = 10  # connections; more readers wait
_BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_MOST_PREPARED = 300  # statements of a connection, which the server keeps in memory until it is closed
_MOST_KEPT = 1024  # values of a kind
_SNAPSHOT = sql_select(literal_column("pg_current_snapshot()::text", String).label("snapshot"))
_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


class PostgresReads(PreparedReads):
    """A read-only transaction of prepared reads, on a snapshot, which begins with the first of them."""

    is_postgres = True

    def __init__(self, open_reader: Callable[[], _Reader], translate_error: ErrorTranslator) -> None:
        self._open = open_reader
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
        compiled = _compiled(statement)
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
                    "the pooler before PostgreSQL loses prepared statements; try again"
                ) from error
            raise self._translate_error(error) or error from error

    def _begun(self, compiled: _CompiledQuery, values: Sequence[Buffer | None]) -> tuple[_Reader, PGresult]:
        """Begins with the first statement. A connection that broke while it was idle is replaced."""
        while True:
            reader = self._open()
            try:
                return reader, reader.run(compiled, values)
            except psycopg.Error as error:
                reader.close()
                if not reader.lost_a_name(error) and (reader.is_new or not _is_stale(error)):
                    raise


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
        self._names = _Names()
        self._is_closed = False

    @contextmanager
    def read(self, *, is_search: bool = False) -> Iterator[PostgresReads]:
        """A transaction, in any thread; raises the errors of `Catalog.read`."""
        if not self._places.acquire(timeout=self._busy_timeout):
            raise Unavailable("the registry's database is overloaded; try again in a moment")
        reads = PostgresReads(self._reader, self._translate_error)
        try:
            yield reads
        finally:
            if reads.reader is not None:
                self._give_back(reads.reader)
            self._places.release()

    def read_together(self) -> AbstractContextManager[None]:
        """Does nothing: each read stays its own transaction, so that none holds a connection for long."""
        return nullcontext()

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
        reader.end()
        with self._lock:
            if reader.is_usable and reader.prepared < _MOST_PREPARED and not self._is_closed:
                self._idle.append(reader)
                return
        reader.close()


@dataclass
class _Names:
    """Whether statements are prepared under names, until a pooler loses one: in transaction mode, it may run
    a statement on another connection to the server than the one that prepared it.
    """

    are_kept: bool = True


class _Reader:
    """A connection in pipeline mode, for one thread at a time. After an error it is not used again."""

    def __init__(self, connection: psycopg.Connection, names: _Names) -> None:
        """`connection` commits by itself."""
        self._connection = connection
        self._names, self._uses_names = names, names.are_kept
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._waiting = select.poll()
        self._waiting.register(self._libpq.socket, select.POLLIN)
        self._prepared: set[bytes] = set()
        self._kept: dict[str, dict[Any, Any]] = {}
        self._kept_of = ""  # the snapshot from which it was computed
        self._is_begun = False
        self.loader: Loader = Transformer(connection)
        self.is_new = True
        self.is_usable = True

    def run(self, compiled: _CompiledQuery, values: Sequence[Buffer | None]) -> PGresult:
        """The rows of a statement in the transaction, which this begins if it is the first."""
        self.is_usable = False
        libpq, expected = self._libpq, 1
        if not self._is_begun:
            if not self.is_new:
                self._drain()
            libpq.send_query_params(_BEGIN, None)
            expected += 1
        name = compiled.name if self._uses_names else b""
        if name not in self._prepared:
            libpq.send_prepare(name, compiled.sql)
            expected += 1
        libpq.send_query_prepared(name, values)
        libpq.send_flush_request()
        self._flush()
        for _ in range(expected):
            result = self._result()
        if name:
            self._prepared.add(name)
        self._is_begun = self.is_usable = True
        return result

    @property
    def prepared(self) -> int:
        """The number of statements that the server keeps for this connection."""
        return len(self._prepared)

    def lost_a_name(self, error: psycopg.Error) -> bool:
        """Whether a pooler has lost a prepared statement (26000), or has one of another client (42P05). From
        then on, statements have no names.
        """
        if not self._uses_names or error.sqlstate not in ("26000", "42P05"):
            return False
        self._names.are_kept = False
        return True

    def kept(self, snapshot: str, kind: str) -> dict[Any, Any]:
        """A place for values that were computed from a snapshot. (`Any`: of this kind.)"""
        if snapshot != self._kept_of:
            self._kept, self._kept_of = {}, snapshot
        kept = self._kept.setdefault(kind, {})
        if len(kept) > _MOST_KEPT:
            kept.clear()
        return kept

    def end(self) -> None:
        """Ends the transaction. The answer is read before the next one."""
        if not (self.is_usable and self._is_begun):
            return
        try:
            self._libpq.send_query_params(b"COMMIT", None)
            self._libpq.pipeline_sync()
            self._flush()
        except psycopg.Error:
            self.is_usable = False
        self._is_begun = self.is_new = False

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()

    def _drain(self) -> None:
        """Reads the answer to the previous transaction's end."""
        self._result()
        if self._next().status != ExecStatus.PIPELINE_SYNC:
            raise psycopg.OperationalError("the connection lost its order")

    def _result(self) -> PGresult:
        """The answer to one statement. Raises its error."""
        result = self._next()
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(result)
        self._next_or_none()  # ends it
        return result

    def _next(self) -> PGresult:
        result = self._next_or_none()
        if result is None:
            raise psycopg.OperationalError("the connection lost its order")
        return result

    def _next_or_none(self) -> PGresult | None:
        libpq = self._libpq
        while libpq.is_busy():
            self._waiting.poll()
            libpq.consume_input()
        return libpq.get_result()

    def _flush(self) -> None:
        while self._libpq.flush():  # the server reads what is left while it answers
            self._waiting.poll(10)
            self._libpq.consume_input()


def _is_stale(error: psycopg.Error) -> bool:
    """Whether the connection failed, not the statement: without an SQLSTATE, or by the server's end
    (57P01).
    """
    return error.sqlstate in (None, "57P01")


class _CompiledQuery:
    """A statement in PostgreSQL's form."""

    def __init__(self, statement: Any) -> None:
        """(`Any`: a selection of any columns.)"""
        plain = statement.compile(dialect=_DIALECT)
        asked = {name: None for name, parameter in plain.binds.items() if parameter.required}
        compiled = plain.construct_expanded_state(asked)
        columns = list(statement.selected_columns)
        self.sql = compiled.statement.encode()
        # The same name never means another statement, also where clients share connections behind a pooler.
        self.name = b"adaptry_" + sha256(self.sql).hexdigest()[:32].encode()
        self._names: Sequence[str] = tuple(compiled.positiontup or ())
        self._constants = {
            name: _as_text(compiled.parameters[name]) for name in self._names if name not in asked
        }
        named = namedtuple("_Row", [str(column.key) for column in columns])  # type: ignore[misc]
        self._row: Callable[[Sequence[object]], Any] = named._make
        # The driver itself makes SQLAlchemy's values of all other types.
        self._moments = [at for at, column in enumerate(columns) if isinstance(column.type, Moment)]

    def values(self, parameters: Mapping[str, object]) -> list[Buffer | None]:
        """The parameters in order. Raises `Invalid` for the character U+0000."""
        return [
            _as_text(parameters[name]) if name in parameters else self._constants[name]
            for name in self._names
        ]

    def rows(self, loader: Loader, result: PGresult) -> list[Any]:
        """(`Any`: named tuples.)"""
        loader.set_pgresult(result)
        rows = loader.load_rows(0, result.ntuples, list)
        for at in self._moments:
            for row in rows:
                row[at] = row[at] and row[at].astimezone(UTC)
        return list(map(self._row, rows))


@lru_cache(maxsize=512)
def _compiled(statement: Query) -> _CompiledQuery:
    return _CompiledQuery(definition_of(statement))


def _as_text(value: object) -> bytes | None:
    """A value as PostgreSQL reads it in a text."""
    match value:
        case None:
            return None
        case bool():
            return b"t" if value else b"f"
        case int() | float():
            return repr(value).encode()
        case datetime():
            return value.isoformat().encode()
        case str():
            if "\0" in value:
                raise Invalid("a text cannot hold the character U+0000")
            return value.encode()
        case list() | tuple():
            return b"{" + b",".join(map(_as_element, value)) + b"}"
    raise TypeError(f"no parameter of a prepared read: {type(value).__name__}")


def _as_element(value: object) -> bytes:
    text = _as_text(value)
    if text is None:
        return b"NULL"
    return (
        b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if isinstance(value, str) else text
    )
