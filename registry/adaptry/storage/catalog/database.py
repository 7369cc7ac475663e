"""`Catalog`: an open database, up to date and safe to use, that gives out transactions.

    with catalog.write() as tx:
        adapter = adapters.find(tx, name)

Opening migrates the schema, refuses one from the future, and checks that commits are durable. A writer waits
for the one before it, then gives up as `Unavailable`; readers see one moment and wait for nobody.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlmodel import Session

from adaptry.core.errors import Unavailable
from adaptry.core.settings import is_postgres
from adaptry.storage.catalog import epochs, sqlite
from adaptry.storage.catalog.dialect import HAS_EVENTS, DatabaseDialect
from adaptry.storage.catalog.epochs import Epoch
from adaptry.storage.catalog.migrate import migrate, schema_of
from adaptry.storage.catalog.notifier import CommitNotifier

Transaction = Session
"""What the functions of this package work in; opaque to everyone else."""


class Catalog:
    """The database at `url`: `sqlite:///path`, `postgresql://…`, or `sqlite://` for one in memory that lives
    as long as this.
    """

    def __init__(self, url: str, busy_timeout: float = 30.0) -> None:
        """Raises `ProtocolMismatch` (newer schema), `Unavailable` (cannot be opened, or is not durable)."""
        self._database = _opened(url, busy_timeout)
        self.path = sqlite.path_of(url)
        """The SQLite file; None for PostgreSQL and in memory."""
        self.notifier = CommitNotifier(self._database.listen)
        # Whoever forgets a catalog need not close it.
        self._release = weakref.finalize(self, self._database.hold())
        weakref.finalize(self, _let_go, self._database.readers, self.notifier)
        with self._database.open_context(), self._errors_translated():
            migrate(self._database)

    @classmethod
    def open(cls, path: Path, busy_timeout: float = 30.0) -> Catalog:
        """The SQLite file at `path`, made if it is missing; its folder must exist."""
        return cls(f"sqlite:///{path.absolute()}", busy_timeout)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one moment and changes nothing."""
        database = self._database
        with database.read_context(), self._errors_translated(), _session(database.readers) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block, or rolls back where it raises.

        It holds the write lock from its beginning, so what it reads stays true until it commits.
        """
        with self._transaction(self._database.writers) as session:
            yield session

    @contextmanager
    def write_nondurable(self) -> Iterator[Transaction]:
        """As `write`, not waiting for the disk: a power cut may undo it, whole, and nothing before it."""
        with self._transaction(self._database.nondurable_writers) as session:
            yield session

    def schema(self) -> str:
        """The number of the schema that it has, as `migrate` counts them."""
        with self._errors_translated(), self._database.readers.connect() as connection:
            return str(schema_of(connection))

    @cached_property
    def epoch(self) -> Epoch:
        """The registry's epoch. Another one begins only while no process has the catalog open."""
        with self.read() as tx:
            return epochs.current(tx)

    def copy_to(self, target: Path) -> None:
        """Copies one moment of a catalog to a file. Raises `StorageFull`, `Unavailable`, `CorruptData`."""
        assert self.path is not None, "only a file is copied"
        try:
            sqlite.copy(self.path, target)
        except sqlite3.Error as error:
            raise self._database.translate_error(error) or error from error

    def check(self) -> None:
        """Raises `Unavailable` where the database does not answer."""
        with self._errors_translated(), self._database.readers.connect() as connection:
            connection.execute(select(1))

    def close(self) -> None:
        """Gives the database's files and connections back to the system."""
        self.notifier.close()
        self._database.readers.dispose()
        self._release()

    @contextmanager
    def _transaction(self, writers: Engine) -> Iterator[Transaction]:
        database = self._database
        with database.write_context(), self._errors_translated(), _session(writers) as session:
            session.connection()  # begins now, not at the first statement
            yield session
            if HAS_EVENTS in session.info:
                database.notify(session.connection())
            session.commit()
        if HAS_EVENTS in session.info:
            self.notifier.notify()

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Turns the driver's errors into ours; programming errors pass as they are."""
        try:
            yield
        except NoConnection as error:
            raise Unavailable("the registry's database has too much to do; try again in a moment") from error
        except DBAPIError as error:
            translated = self._database.translate_error(error.orig) if error.orig else None
            if translated:
                raise translated from error
            raise


def _opened(url: str, busy_timeout: float) -> DatabaseDialect:
    if is_postgres(url):
        from adaptry.storage.catalog import postgres

        return postgres.open_database(url, busy_timeout)
    return sqlite.open_database(url, busy_timeout)


def _let_go(engine: Engine, notifier: CommitNotifier) -> None:
    notifier.stop()
    engine.dispose()


def _session(engine: Engine) -> Session:
    # Rows are read within their transaction and turned into values; nothing is refreshed behind our back.
    return Session(engine, expire_on_commit=False, autoflush=True)
