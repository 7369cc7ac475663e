"""The connection of a group of writers to SQLite."""

from __future__ import annotations

import sqlite3


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
