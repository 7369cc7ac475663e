"""Prepared statements on PostgreSQL, in libpq's pipeline mode, without SQLAlchemy and the driver's cursors.

A statement is compiled once, to PostgreSQL's own text, and prepared once on each connection. Several
statements may be sent before the first answer is read. A thread that waits for an answer does not hold the
interpreter lock.
"""

from __future__ import annotations

import select
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from sqlalchemy import Delete, Update
from sqlalchemy.dialects.postgresql import asyncpg  # writes `$1`, as the protocol has it; imports no driver

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.loop_reads import LoopSocket, is_on_loop, require_thread
from adaptry.storage.catalog.postgres import is_of_pooler
from adaptry.storage.catalog.prepared import Query, definition_of
from adaptry.storage.catalog.rows import Moment

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.abc import Transformer as Loader
    from psycopg.pq.abc import PGresult

    from adaptry.storage.catalog.prepared_changes import Changes

MAX_PREPARED = 300
"""Statements of a connection, which the server keeps in memory until it is closed."""
_SUCCESSES = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


@dataclass
class PreparedNames:
    """Whether statements are prepared under names, until a pooler loses one: in transaction mode, it may run
    a statement on another connection to the server than the one that prepared it.
    """

    are_kept: bool = True


class ServerStatement:
    """The text of a statement with the parameters `$1`, `$2`, …, and its name on the server."""

    def __init__(self, sql: str) -> None:
        self.sql = sql.encode()
        # A name always means the same statement, even where clients share connections behind a pooler.
        self.name = b"adaptry_" + sha256(self.sql).hexdigest()[:32].encode()


class Pipeline:
    """A connection in pipeline mode, for one thread at a time. After an error of the driver it is not
    `is_usable`.
    """

    def __init__(self, connection: psycopg.Connection[Any], names: PreparedNames) -> None:
        """`connection` is in autocommit mode. (`Any`: its rows are never read by its cursors.)"""
        self.connection = connection
        self._names, self._uses_names = names, names.are_kept
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._waiting = select.poll()
        self._waiting.register(self._libpq.socket, select.POLLIN)
        self._on_loop: LoopSocket | None = None
        self._prepared: set[bytes] = set()
        self._expected = 0  # answers that have not been read yet
        self._is_ending = False  # whether the end of the pipeline was sent and follows the last of them
        self._is_ready = True  # for the next statement
        self.loader: Loader = Transformer(connection)
        self.is_usable = True

    @property
    def prepared(self) -> int:
        """The number of statements that the server keeps for this connection."""
        return len(self._prepared)

    def send_text(self, sql: bytes) -> None:
        """Sends a statement without parameters; `receive` or `settle` reads its answer."""
        if not self._is_ready:
            self._get_ready()
        self.is_usable = False
        self._libpq.send_query_params(sql, None)
        self._expected += 1
        self.is_usable = True

    def send(self, statement: ServerStatement, values: Sequence[Buffer | None]) -> None:
        """Like `send_text`, for a prepared statement."""
        if not self._is_ready:
            self._get_ready()
        self.is_usable = False
        name = statement.name if self._uses_names else b""
        if name not in self._prepared:
            self._libpq.send_prepare(name, statement.sql)
            self._expected += 1
            if name:
                self._prepared.add(name)
        self._libpq.send_query_prepared(name, values)
        self._expected += 1
        self.is_usable = True

    def receive(self) -> PGresult:
        """The answer to the statement that was sent last. Raises the first error of all that were sent."""
        return self.receive_all()[-1]

    def receive_all(self) -> list[PGresult]:
        """The answers to all statements that were sent, in their order. Raises the first error."""
        self.is_usable = False
        self._libpq.send_flush_request()
        results = self._read_all()
        self.is_usable = True
        return results

    def end(self) -> None:
        """Ends what was sent, without waiting: its answers are read before the next statement."""
        self.is_usable = self._is_ready = False
        self._send_end()
        self._flush()
        self.is_usable = True

    def settle(self) -> PGresult:
        """Ends what was sent. Returns the last answer, and raises the first error."""
        self.is_usable = False
        self._send_end()
        result = self._read_all()[-1]
        self._require_end()
        self.is_usable = True
        return result

    def leave(self) -> None:
        """Waits for everything that was sent, so that the driver's cursors may use the connection."""
        if self._libpq.pipeline_status == PipelineStatus.OFF:
            return
        self.is_usable = self._is_ready = False
        if self._expected:
            self.settle()
        else:
            self._send_end()
            self._flush()
            self._require_end()
        self._libpq.exit_pipeline_mode()
        self.is_usable = True

    def recover(self) -> bool:
        """Discards what was sent and not answered, so that the connection can be used after an error. Returns
        whether its transaction is still open.

        From now on it prepares no statement: those that it prepared before may not exist. Raises the driver's
        errors if the connection itself has failed.
        """
        self.is_usable = self._uses_names = False
        if self._libpq.pipeline_status != PipelineStatus.OFF:
            if not self._is_ending:
                self._send_end()
                self._flush()
            while not self._has_ended():
                pass
            self._expected, self._is_ready = 0, True
        elif self._libpq.status != ConnStatus.OK:
            raise psycopg.OperationalError("the connection to PostgreSQL is lost")
        self.is_usable = True
        return self._libpq.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def lost_prepared_statement(self, error: psycopg.Error) -> bool:
        """Whether a pooler has lost a prepared statement. From then on, statements have no names."""
        if not self._uses_names or not is_of_pooler(error):
            return False
        self._names.are_kept = False
        return True

    def close(self) -> None:
        self._leave_loop()
        with suppress(psycopg.Error):
            self.connection.close()

    def _get_ready(self) -> None:
        self.is_usable = False
        if self._is_ending:
            self._read_all()
            self._require_end()
        else:
            self._libpq.enter_pipeline_mode()
        self._is_ready = True

    def _send_end(self) -> None:
        self._libpq.pipeline_sync()
        self._is_ending = True

    def _require_end(self) -> None:
        if not self._has_ended():
            raise psycopg.OperationalError("PostgreSQL sent an unexpected answer")

    def _has_ended(self) -> bool:
        """Reads one more answer. Returns whether it is the end of the pipeline."""
        if self._libpq.is_busy():
            self._wait()
        result = self._libpq.get_result()
        if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
            self._is_ending = False
            return True
        if self._libpq.status != ConnStatus.OK:
            raise psycopg.OperationalError("the connection to PostgreSQL is lost")
        return False

    def _read_all(self) -> list[PGresult]:
        libpq, results = self._libpq, []
        if libpq.flush():
            self._flush()
        while True:
            if libpq.is_busy():
                self._wait()
            result = libpq.get_result()
            if result is None:
                raise psycopg.OperationalError("PostgreSQL sent an unexpected answer")
            if result.status not in _SUCCESSES:
                raise error_from_result(result)
            if libpq.is_busy():
                self._wait()
            libpq.get_result()  # None ends the results of a statement
            results.append(result)
            self._expected -= 1
            if not self._expected:
                return results

    def _wait(self) -> None:
        while True:
            if is_on_loop():
                self._wait_on_loop()
            else:
                self._waiting.poll()
            self._libpq.consume_input()
            if not self._libpq.is_busy():
                return

    def _wait_on_loop(self) -> None:
        if self._on_loop is None:
            self._on_loop = LoopSocket(self._libpq.socket, self._receive_idle)
        self._on_loop.wait()

    def _receive_idle(self) -> None:
        """Receives data that arrives between two reads on an event loop, such as the end of a transaction."""
        try:
            self._libpq.consume_input()
        except psycopg.Error:  # the next read finds the connection broken
            self._leave_loop()

    def _leave_loop(self) -> None:
        if self._on_loop is not None:
            self._on_loop.close()
            self._on_loop = None

    def _flush(self) -> None:
        while self._libpq.flush():  # the server reads the rest while it answers
            require_thread()
            self._waiting.poll(10)
            self._libpq.consume_input()


def is_stale(error: psycopg.Error) -> bool:
    """Whether the connection failed, not the statement: without an SQLSTATE, or by the server's end
    (57P01).
    """
    return error.sqlstate in (None, "57P01")


class PostgresStatement(ServerStatement):
    """A statement of SQLAlchemy in PostgreSQL's form."""

    def __init__(self, statement: Any) -> None:
        """(`Any`: a selection of any columns, or a change.)"""
        plain = statement.compile(dialect=DIALECT)
        asked = {name: None for name, parameter in plain.binds.items() if parameter.required}
        compiled = plain.construct_expanded_state(asked)
        super().__init__(compiled.statement)
        columns = [] if isinstance(statement, Update | Delete) else list(statement.selected_columns)
        self._names: Sequence[str] = tuple(compiled.positiontup or ())
        self._constants = {
            name: as_text(compiled.parameters[name]) for name in self._names if name not in asked
        }
        named = namedtuple("_Row", [str(column.key) for column in columns])  # type: ignore[misc]
        self._row: Callable[[Sequence[object]], Any] = partial(tuple.__new__, named)  # `_make` takes longer
        # The driver itself makes SQLAlchemy's values of all other types.
        self._moments = [at for at, column in enumerate(columns) if isinstance(column.type, Moment)]

    def values(self, parameters: Mapping[str, object]) -> list[Buffer | None]:
        """The parameters in order. Raises `Invalid` for the character U+0000."""
        if not self._constants:
            return as_texts([parameters[name] for name in self._names])
        return [
            as_text(parameters[name]) if name in parameters else self._constants[name] for name in self._names
        ]

    def rows(self, loader: Loader, result: PGresult) -> list[Any]:
        """(`Any`: named tuples.)"""
        loader.set_pgresult(result)
        if not self._moments:
            return loader.load_rows(0, result.ntuples, self._row)
        rows = loader.load_rows(0, result.ntuples, list)
        for at in self._moments:
            for row in rows:
                row[at] = row[at] and row[at].astimezone(UTC)
        return list(map(self._row, rows))


@lru_cache(maxsize=1024)
def postgres_statement(statement: Query | Changes) -> PostgresStatement:
    """The statement in PostgreSQL's form, which is made once."""
    return PostgresStatement(definition_of(statement))


def as_text(value: object) -> bytes | None:
    """A value as PostgreSQL reads it in a text. Raises `Invalid` for the character U+0000."""
    match value:
        case None:
            return None
        case str():
            if "\0" in value:
                raise Invalid("text cannot contain the character U+0000")
            return value.encode()
        case bool():
            return b"t" if value else b"f"
        case int() | float():
            return repr(value).encode()
        case datetime():
            return value.isoformat().encode()
        case bytes():
            return b"\\x" + value.hex().encode()
        case list() | tuple() if all(type(one) is int for one in value):
            return f"{{{','.join(map(str, value))}}}".encode()
        case list() | tuple():
            return b"{" + b",".join(map(_as_element, value)) + b"}"
    raise TypeError(f"unsupported parameter of a prepared statement: {type(value).__name__}")


def as_texts(values: Iterable[object]) -> list[Buffer | None]:
    """Like `as_text`, for several values."""
    return [
        value.encode() if type(value) is str and "\0" not in value else as_text(value) for value in values
    ]


def _as_element(value: object) -> bytes:
    text = as_text(value)
    if text is None:
        return b"NULL"
    if isinstance(value, str | bytes):
        return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    return text
