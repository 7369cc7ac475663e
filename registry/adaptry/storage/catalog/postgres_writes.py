"""Writers on PostgreSQL: prepared statements on one connection, with a session only if one is needed.

Changes are sent without waiting for their answers, which are read with the next result that is needed, at the
latest at the end of the writer. So a push takes one transaction, and a round trip for each of its reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.postgres_pipeline import (
    DIALECT,
    MAX_PREPARED,
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

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from adaptry.storage.catalog.prepared import Query
    from adaptry.storage.catalog.prepared_changes import Changes

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
        self._had_error = False

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can be used for the next transaction."""
        return self._pipeline.is_usable and not self._had_error and self._pipeline.prepared < MAX_PREPARED

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
        """Like `change`; returns the number of changed rows."""
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

    def settle(self) -> None:
        """Waits for all changes. Raises the first error."""
        self._pipeline.settle()

    def recover(self) -> bool:
        """Discards what was sent before an error. Returns whether the transaction is still open. Raises the
        driver's errors if the connection has failed.
        """
        self._had_error = True
        return self._pipeline.recover()

    def sqlalchemy_connection(self) -> Connection:
        """SQLAlchemy's connection, in this transaction. Raises the error of each change so far."""
        self._pipeline.leave()  # SQLAlchemy closes a connection with an error at its first use
        if self._engine is None:
            connection = self._pipeline.connection
            self._engine = create_engine(
                "postgresql+psycopg://",
                creator=lambda: connection,
                poolclass=StaticPool,
                use_native_hstore=False,  # otherwise SQLAlchemy queries for it at the first use
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

    def rollback(self) -> None:
        self._pipeline.send_text(b"ROLLBACK")
        self._pipeline.settle()
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


class PostgresGroupConnection:
    """The connection of a process's writers, for a group of which each is a savepoint (`group_commit`).
    `lock` is the statement that takes the lock of all processes.
    """

    error = psycopg.Error
    """Raised by prepared statements."""

    def __init__(self, connect: Callable[[], PostgresWriterConnection], lock: str) -> None:
        self._connect = connect
        self._lock = ServerStatement(lock)
        self._names = PreparedNames()
        self._writer: PostgresWriter | None = None

    @property
    def driver(self) -> PostgresWriter:
        if self._writer is None:
            self._writer = PostgresWriter(self._connect(), self._names)
        return self._writer

    def sqlalchemy_connection(self) -> Connection:
        return self.driver.sqlalchemy_connection()

    def begin(self, *, is_durable: bool) -> None:
        """Replaces a connection that broke while it was idle."""
        while True:
            writer = self.driver
            try:
                writer.begin(self._lock, is_durable=is_durable)
            except BaseException as error:
                self.close()
                if not isinstance(error, psycopg.Error) or (
                    not writer.lost_prepared_statement(error) and (writer.is_new or not is_stale(error))
                ):
                    raise
            else:
                return

    def save(self) -> None:
        self.driver.run(b"SAVEPOINT writer")

    def keep(self, *, is_alone: bool) -> None:
        self.driver.run(b"RELEASE writer")
        if not is_alone:
            self.driver.settle()

    def is_open_after(self, error: BaseException) -> bool:
        if isinstance(error, psycopg.Error):
            self.driver.lost_prepared_statement(error)
        try:
            return self.driver.recover()
        except psycopg.Error:
            return False

    def undo(self) -> None:
        self.driver.run(b"ROLLBACK TO writer")
        self.driver.run(b"RELEASE writer")
        self.driver.settle()

    def commit(self) -> None:
        try:
            self.driver.commit()
        except psycopg.Error as error:
            self.driver.lost_prepared_statement(error)
            raise
        self._keep_or_close()

    def rollback(self) -> None:
        self.driver.rollback()
        self._keep_or_close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _keep_or_close(self) -> None:
        if not self.driver.is_reusable:
            self.close()


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
