"""The SQLite file of shared counts of requests, beside the catalog's file.

It is not the catalog's own file, because each commit there waits for the disk and for other writers, and
makes every process read again what it has kept. A power failure may undo the last counts. The file is created
at its first use, and may be deleted while no server runs.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool
from sqlalchemy.schema import CreateTable

from adaptry.core.files.locks import FileLock
from adaptry.storage.catalog.catalog_lock import PRIVATE
from adaptry.storage.catalog.rows import RequestUseRow, Row

FILE = "request-use.sqlite"
_TIMEOUT = 2.0  # seconds that a writer waits for another


def open_counters(catalog: str | None) -> Engine:
    """The counts beside the catalog's file, or in memory (None)."""
    if catalog is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        path = Path(catalog).absolute().with_name(FILE)
        connect_args = {"timeout": _TIMEOUT, "check_same_thread": False}
        engine = create_engine(f"sqlite:///{path}", connect_args=connect_args)
        event.listen(engine, "do_connect", lambda *_: _create_private(path))
    create = str(
        CreateTable(Row.metadata.tables[RequestUseRow.__tablename__], if_not_exists=True).compile(engine)
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver must not begin transactions itself; `begin` below does
        connection.execute("PRAGMA synchronous=NORMAL")
        if catalog is None:
            connection.execute(create)
            return
        # Only one process at a time: enabling WAL fails instead of waiting for others.
        with FileLock.acquire_exclusive(path.with_name(f"{FILE}.opening"), mode=PRIVATE):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(create)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _create_private(path: Path) -> None:
    """Creates the file for its owner only. (An existing one is not opened: closing it would drop this
    process's SQLite locks on it.)
    """
    with suppress(OSError):  # SQLite will report the error
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
