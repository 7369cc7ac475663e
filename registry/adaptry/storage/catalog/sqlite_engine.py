"""SQLAlchemy's engines for SQLite, for everything except prepared statements."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from adaptry.storage.catalog import sqlite
from adaptry.storage.catalog.sqlite_writer import WriterConnection, begin_write

WRITES = "adaptry_writes"
"""The execution option of connections whose transactions write: True, or `NOTES`."""
NOTES = "notes"
"""For transactions whose commit a power failure may undo."""


def create(path: str | None, busy_timeout: float) -> Engine:
    """Creates the engine for a database file, or for a database in memory."""
    # Options of create_engine. A server has more threads than a pool has connections; no thread waits.
    options: dict[str, Any] = {"poolclass": StaticPool} if path is None else {"max_overflow": -1}
    engine = create_engine(
        URL.create("sqlite", database=path),
        connect_args={"timeout": busy_timeout, "check_same_thread": False, "cached_statements": 512},
        **options,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        sqlite.set_up(connection, is_durable=path is not None)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            if writes:
                begin_write(driver, is_durable=writes != NOTES)
            else:
                driver.execute("BEGIN")  # like SQLAlchemy, at a tenth of the cost
        except sqlite3.Error as error:
            raise DBAPIError("BEGIN", None, error) from error

    return engine


def engine_over(driver: WriterConnection) -> Engine:
    """An engine whose only connection is `driver`, and which ends none of its transactions."""
    return create_engine("sqlite://", creator=lambda: driver, poolclass=StaticPool)
