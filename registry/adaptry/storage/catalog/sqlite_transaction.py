"""A writer's part of a transaction on the driver of SQLite, with a session only if one is needed.

A push runs only prepared statements. A session would import SQLAlchemy, and creating it takes longer than a
statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adaptry.storage.catalog.lazy_modules import sm
from adaptry.storage.catalog.prepared import DRIVER

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlmodel import Session


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


class SqliteTransaction:
    """Has the methods of a `Session`. The session and prepared statements see each other's changes.

    `connect` gives SQLAlchemy's view of the same connection. The session makes a savepoint of its own.
    """

    def __init__(self, driver: sqlite3.Connection, connect: Callable[[], Connection]) -> None:
        self.info: dict[str, Any] = {DRIVER: driver}
        """As of a session. (`Any`: each key has its type.)"""
        self._connect = connect
        self._session: Session | None = None

    def __getattr__(self, name: str) -> Any:
        """(`Any`: whatever a session has.)"""
        if self._session is None:
            self._session = sm.Session(
                self._connect(), expire_on_commit=False, join_transaction_mode="create_savepoint"
            )
        return getattr(self._session, name)

    def flush(self) -> None:
        if self._session is not None:
            self._session.flush()

    def commit(self) -> None:
        """Makes the session's changes part of the transaction."""
        if self._session is not None:
            self._session.commit()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def invalidate(self) -> None:
        if self._session is not None:
            self._session.invalidate()
