"""The connection of a SQLite file's writers, whose transactions a group of them shares (`group_commit`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class WriterConnection(sqlite3.Connection):
    """A connection of the group of writers. Only the group ends its transactions, by SQL statements; `commit`
    and `rollback` do nothing, because SQLAlchemy rolls back when it first uses a connection.
    """

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass


def begin_write(connection: sqlite3.Connection, *, is_durable: bool) -> None:
    """Begins a transaction that may change rows. A reader that becomes a writer fails at once if another
    wrote in the meantime, so writers take the lock first.
    """
    # Set each time, since connections are used for both; in WAL mode the next FULL commit syncs both.
    connection.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")


class SqliteGroupConnection:
    """A connection of the driver, with SQLAlchemy's view of it if a writer needed one."""

    def __init__(self, connect: Callable[[], WriterConnection]) -> None:
        self._connect = connect
        self._driver: WriterConnection | None = None
        self._engine: Engine | None = None
        self._seen: Connection | None = None

    @property
    def driver(self) -> WriterConnection:
        """The driver's connection, which is opened if necessary."""
        if self._driver is None:
            self._driver = self._connect()
        return self._driver

    def sqlalchemy_connection(self) -> Connection:
        from adaptry.storage.catalog import sqlite_engine  # imports SQLAlchemy; few commands need it

        if self._engine is None:
            self._engine = sqlite_engine.engine_over(self.driver)
        if self._seen is None:
            self._seen = self._engine.connect()
            self._seen.begin()
        return self._seen

    def begin(self, *, is_durable: bool) -> None:
        begin_write(self.driver, is_durable=is_durable)

    def save(self) -> None:
        self.driver.execute("SAVEPOINT writer")

    def keep(self, *, is_alone: bool) -> None:
        self.driver.execute("RELEASE writer")

    def is_open_after(self, error: BaseException) -> bool:
        return self.driver.in_transaction

    def undo(self) -> None:
        self.driver.execute("ROLLBACK TO writer")
        self.driver.execute("RELEASE writer")

    def commit(self) -> None:
        self._end("COMMIT")

    def rollback(self) -> None:
        self._end("ROLLBACK")

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
        self._driver = self._engine = self._seen = None

    def has_schema(self, number: str) -> bool:
        """Whether the database has the schema of that number, by its own record. Raises `sqlite3.Error`."""
        found = self.driver.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
        ).fetchone()
        if found == (0,):
            return False
        return self.driver.execute("SELECT version_num FROM alembic_version").fetchall() == [(number,)]

    def shrink(self) -> None:
        """Frees the pages that it keeps."""
        if self._driver is not None:
            self._driver.execute("PRAGMA shrink_memory")

    def _end(self, statement: str) -> None:
        if self.driver.in_transaction:
            self.driver.execute(statement)
        if self._seen is not None:
            self._seen.close()
            self._seen = None
