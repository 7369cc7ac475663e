"""Writers on PostgreSQL: prepared statements on one connection, with a session only if one is needed.

Changes are sent without waiting for their answers, which are read with the next result that is needed, at the
latest with that of the commit. So a push takes one transaction, and a round trip for each of its reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.postgres_pipeline import (
    DIALECT,
    MOST_PREPARED,
    Pipeline,
    PreparedNames,
    ServerStatement,
    as_text,
    as_texts,
    is_stale,
    postgres_statement,
)
from adaptry.storage.catalog.prepared_changes import table_texts
from adaptry.storage.catalog.rows import Row
from adaptry.storage.catalog.writer_transaction import WriterTransaction

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlmodel import Session

    from adaptry.storage.catalog.dialect import ContextFactory
    from adaptry.storage.catalog.prepared import Query
    from adaptry.storage.catalog.prepared_changes import Changes

Result = TypeVar("Result")
_REFUSALS = ("22", "23", "54")  # classes of SQLSTATE: values, constraints, limits
_NOT_FLUSHED = b"SET LOCAL synchronous_commit TO off"


class PostgresWriterConnection(psycopg.Connection[Any]):
    """A connection whose transactions only `PostgresWriter` ends; `commit` and `rollback` do nothing, because
    SQLAlchemy rolls back when it first uses a connection. (`Any`: SQLAlchemy's rows.)
    """

    before_cursor: Callable[[], None] = staticmethod(lambda: None)

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass

    def cursor(self, *args: Any, **options: Any) -> Any:
        """Leaves pipeline mode, in which cursors do not work. (`Any`: as in the driver.)"""
        self.before_cursor()
        return super().cursor(*args, **options)


class PostgresWriter:
    """A connection with a transaction, for prepared statements and, if needed, for SQLAlchemy."""

    def __init__(self, connection: PostgresWriterConnection, names: PreparedNames) -> None:
        self._pipeline = Pipeline(connection, names)
        connection.before_cursor = self._pipeline.leave
        self._engine: Engine | None = None
        self._seen: Connection | None = None
        self.is_new = True

    @property
    def prepared(self) -> int:
        """The number of statements that the server keeps for this connection."""
        return self._pipeline.prepared

    @property
    def is_usable(self) -> bool:
        return self._pipeline.is_usable

    def begin(self, statement: ServerStatement, *, is_durable: bool) -> None:
        """Waits for the writers' lock, which `statement` takes."""
        self._pipeline.send_text(b"BEGIN ISOLATION LEVEL READ COMMITTED")
        if not is_durable:
            self._pipeline.send_text(_NOT_FLUSHED)
        self._pipeline.send(statement, ())
        self._pipeline.receive()

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        """The rows of a statement that is built once. (`Any`: named tuples.)"""
        made = postgres_statement(statement)
        pipeline = self._pipeline
        pipeline.send(made, made.values(parameters))
        return made.rows(pipeline.loader, pipeline.receive())

    def change(self, statement: Changes, parameters: Mapping[str, object]) -> None:
        """Runs an update or deletion that is built once."""
        made = postgres_statement(statement)
        self._pipeline.send(made, made.values(parameters))

    def count_changed(self, statement: Changes, parameters: Mapping[str, object]) -> int:
        """The same; returns the number of changed rows."""
        self.change(statement, parameters)
        return self._pipeline.receive().command_tuples or 0

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Inserts rows with the same columns."""
        names = tuple(rows[0])
        if len(rows) == 1:
            self._pipeline.send(_insert_one(table, names), as_texts(rows[0].values()))
            return
        together = [as_text([row[name] for row in rows]) for name in names]
        self._pipeline.send(_insert_many(table, names), together)

    def insert_keyed(self, table: str, row: Mapping[str, object]) -> int:
        """Inserts a row; returns its key if the database gives one, else 0."""
        self._pipeline.send(_insert_one(table, tuple(row)), as_texts(row.values()))
        if table_texts()[table].key is None:
            return 0
        return int(self._pipeline.receive().get_value(0, 0) or 0)

    def run(self, sql: bytes) -> None:
        """Runs a statement without parameters and result."""
        self._pipeline.send_text(sql)

    def as_seen(self) -> Connection:
        """SQLAlchemy's connection, in this transaction."""
        if self._engine is None:
            connection = self._pipeline.connection
            self._engine = create_engine(
                "postgresql+psycopg://",
                creator=lambda: connection,
                poolclass=StaticPool,
                use_native_hstore=False,  # else SQLAlchemy queries for it at the first use
            )
        if self._seen is None:
            self._seen = self._engine.connect()
            self._seen.begin()
        return self._seen

    def commit(self) -> None:
        self._pipeline.send_text(b"COMMIT")
        if self._pipeline.settle().command_status != b"COMMIT":
            raise Unavailable("the database ended a transaction; try again in a moment")
        self._end()

    def undo(self) -> None:
        """Rolls back, or leaves that to the server if the connection has failed."""
        try:
            if self.is_usable:
                self._pipeline.send_text(b"ROLLBACK")
                self._pipeline.settle()
        except psycopg.Error:
            pass
        finally:
            self._end()

    def lost_prepared_statement(self, error: psycopg.Error) -> bool:
        return self._pipeline.lost_prepared_statement(error)

    def close(self) -> None:
        self._pipeline.close()

    def _end(self) -> None:
        self.is_new = False
        if self._seen is not None:
            self._seen.close()
            self._seen = None


class PostgresWriters:
    """Transactions, one at a time: the writers of a process take turns (`turn`), and `lock` takes the lock
    of all processes.
    """

    error = psycopg.Error
    """Raised by prepared statements."""

    def __init__(
        self, connect: Callable[[], PostgresWriterConnection], turn: ContextFactory, lock: str
    ) -> None:
        self._connect = connect
        self._turn = turn
        self._lock = ServerStatement(lock)
        self._names = PreparedNames()
        self._idle: PostgresWriter | None = None  # belongs to the writer that has the turn
        self._is_closed = False

    @contextmanager
    def write(self, is_durable: bool) -> Iterator[Session]:
        """A transaction that commits at the end of the block. Raises the driver's errors."""
        with self._turn(), self._begun(is_durable) as writer, _transaction(writer) as transaction:
            yield transaction

    def write_each(self, changes: Sequence[Callable[[Session], Result]]) -> list[Result | Exception]:
        """Commits durable transactions of several writers together: each is a savepoint. Returns the result
        of each, or the error for which it was undone. If the database refuses a statement, all are undone,
        and each is run again alone. Raises the driver's other errors, which undo all.
        """
        if len(changes) > 1:
            try:
                with self._turn(), self._begun(is_durable=True) as writer:
                    return [self._outcome(writer, change) for change in changes]
            except Exception as error:
                if not _is_refusal(error):
                    raise
        return [self._alone(change) for change in changes]

    def _alone(self, change: Callable[[Session], Result]) -> Result | Exception:
        try:
            with self.write(is_durable=True) as transaction:
                result = change(transaction)
        except Exception as error:  # noqa: BLE001  (its writer raises it)
            return error
        return result

    def _outcome(self, writer: PostgresWriter, change: Callable[[Session], Result]) -> Result | Exception:
        writer.run(b"SAVEPOINT writer")
        try:
            with _transaction(writer) as transaction:
                result = change(transaction)
        except Exception as error:
            if not writer.is_usable or isinstance(error, psycopg.Error):
                raise
            writer.run(b"ROLLBACK TO writer")
            return error
        writer.run(b"RELEASE writer")
        return result

    def close(self) -> None:
        """Closes the connection that is kept for the next writer; none is kept from now on."""
        self._is_closed = True
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.close()

    @contextmanager
    def _begun(self, is_durable: bool) -> Iterator[PostgresWriter]:
        """A connection with a transaction that has the lock, and ends with the block."""
        writer = None
        try:
            writer = self._begin(is_durable)
            try:
                yield writer
                writer.commit()
            except BaseException:
                writer.undo()
                raise
            finally:
                self._give_back(writer)
        except psycopg.Error as error:
            if writer is not None and writer.lost_prepared_statement(error):
                raise Unavailable(
                    "the pooler in front of PostgreSQL loses prepared statements; try again"
                ) from error
            raise

    def _begin(self, is_durable: bool) -> PostgresWriter:
        """Begins a transaction; replaces a connection that broke while it was idle."""
        while True:
            writer, self._idle = self._idle or PostgresWriter(self._connect(), self._names), None
            try:
                writer.begin(self._lock, is_durable=is_durable)
            except BaseException as error:
                writer.close()
                if not isinstance(error, psycopg.Error) or (
                    not writer.lost_prepared_statement(error) and (writer.is_new or not is_stale(error))
                ):
                    raise
            else:
                return writer

    def _give_back(self, writer: PostgresWriter) -> None:
        if writer.is_usable and writer.prepared < MOST_PREPARED:
            self._idle = writer
            if self._is_closed:
                self.close()
        else:
            writer.close()


def _is_refusal(error: Exception) -> bool:
    """Whether the database refused a statement because of its values, so that nothing was committed. The
    error may be one of SQLAlchemy's.
    """
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return state is not None and state[:2] in _REFUSALS


@contextmanager
def _transaction(writer: PostgresWriter) -> Iterator[Session]:
    transaction = WriterTransaction(writer, writer.as_seen)
    try:
        yield cast("Session", transaction)  # it has the methods of one
        transaction.commit()
    finally:
        with suppress(Exception):
            transaction.close()


@lru_cache(maxsize=256)
def _insert_one(table: str, names: tuple[str, ...]) -> ServerStatement:
    places = ", ".join(f"${number + 1}" for number in range(len(names)))
    key = table_texts()[table].key
    returning = "" if key is None else f' RETURNING "{key}"'
    return ServerStatement(f'INSERT INTO "{table}" ({_listed(names)}) VALUES ({places}){returning}')


@lru_cache(maxsize=256)
def _insert_many(table: str, names: tuple[str, ...]) -> ServerStatement:
    """Inserts any number of rows: each parameter is an array of one column."""
    columns = Row.metadata.tables[table].c
    arrays = ", ".join(
        f"${number + 1}::{columns[name].type.compile(DIALECT)}[]" for number, name in enumerate(names)
    )
    return ServerStatement(f'INSERT INTO "{table}" ({_listed(names)}) SELECT * FROM unnest({arrays})')


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
