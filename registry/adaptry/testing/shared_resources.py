"""Resources that the many registries of a test process share: compiled SQL, an empty SQLite database, weight
inspectors.

A test opens a new registry and does little with it, so most of its time went into compiling the same
statements for another engine, creating the same tables, and starting another child process. Programs open one
registry and keep it.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, Engine, create_engine, update
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from adaptry.adapters.inspection.inspector import Inspector
from adaptry.storage.catalog import database, sqlite, sqlite_engine, sqlite_schema
from adaptry.storage.catalog.dialect import DatabaseDialect
from adaptry.storage.catalog.migrate import migrate
from adaptry.storage.catalog.rows import EpochRow
from adaptry.storage.local import context


class _SameDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy keeps compiled statements per dialect; our engines are set up alike, so theirs are equal."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameDialect)

    def __hash__(self) -> int:
        return hash(_SameDialect)


class _KeptInspector(Inspector):
    """An inspector whose child processes outlive the registries that use it."""

    def close(self) -> None:
        """Keeps the idle child processes for the next registry; they end with this process."""


@contextmanager
def shared_between_registries() -> Iterator[None]:
    """Makes registries that are opened in the block share these resources."""
    inspector = _KeptInspector()
    compiled: LRUCache[Any, Any] = LRUCache(5000)

    def engine_of(*args: Any, **options: Any) -> Engine:
        engine = create_engine(*args, execution_options={"compiled_cache": compiled}, **options)
        engine.dialect.__class__ = _SameDialect
        return engine

    with ExitStack() as stack:
        empty = stack.enter_context(closing(_empty_database()))

        def copied_or_migrated(new: DatabaseDialect) -> None:
            if new.readers.dialect.name == "sqlite" and _copy_into(new, empty):
                return
            migrate(new)

        stack.enter_context(patch.object(database, "migrate", copied_or_migrated))
        stack.callback(Inspector.close, inspector)
        stack.enter_context(patch.object(sqlite_engine, "create_engine", engine_of))
        stack.enter_context(patch.object(context, "Inspector", lambda: inspector))
        yield


def _empty_database() -> sqlite3.Connection:
    """A catalog's database in memory, with every table and the first epoch."""
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    made = sqlite.open_database("sqlite://", 0)
    migrate(made)
    with made.readers.connect() as connection:
        _driver(connection).backup(copy)
    made.dispose()
    return copy


def _copy_into(new: DatabaseDialect, empty: sqlite3.Connection) -> bool:
    """Copies `empty` into a database, with a new epoch; False if it has tables or is read-only."""
    with new.readers.connect() as connection:
        is_empty = sqlite_schema.is_empty(connection)
        connection.rollback()
        if not is_empty:
            return False
        try:
            empty.backup(_driver(connection))
        except sqlite3.Error:
            return False
        epoch = {"id": secrets.token_hex(8), "secret": secrets.token_hex(32), "began_at": datetime.now(UTC)}
        connection.execute(update(EpochRow).values(epoch))
        connection.commit()
    return True


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver
