"""Prepared reads: the statements of nearly every request, run on SQLite without a session.

A statement is compiled once, from the same SQLAlchemy object that runs in every other transaction, to
SQLite's own text with the conversions of its columns; a `NamedStatement` was compiled before. It runs on a
read-only connection, and its results are as current as in any other transaction: nothing is cached.

SQLAlchemy is imported only by the callers that have statements of it, or a session.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from adaptry.core.errors import AdaptryError
from adaptry.storage.catalog.statement_texts import CONVERSIONS, NamedStatement, StatementText

if TYPE_CHECKING:
    from sqlalchemy import CompoundSelect, Row, Select
    from sqlmodel import Session

    Reads: TypeAlias = Session | "PreparedReads"

_CACHE = 2000  # KiB of the database kept by each connection; the system keeps the rest
_DRIVER = "adaptry_driver"  # in the `info` of a session
_KEPT = 4  # connections kept for later; more are opened if more threads read at once
ErrorTranslator = Callable[[BaseException], AdaptryError | None]
Query: TypeAlias = "Select[Any] | CompoundSelect[Any] | NamedStatement"
"""(`Any`: statements are typed by their columns.)"""


class PreparedReads:
    """A read-only transaction of prepared reads, on a snapshot."""

    def __init__(self, connection: sqlite3.Connection, translate_error: ErrorTranslator) -> None:
        self._connection = connection
        self._translate_error = translate_error

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        """The rows of a statement that is built and compiled once; `parameters` has texts and whole numbers.
        Raises the errors of `Catalog.read`.

        (`Any`: named tuples of the statement's columns.)
        """
        with _translated(self._translate_error):
            return run_prepared(self._connection, statement, parameters)


class PreparedReaders:
    """Connections to the database file at `path`, which must be in WAL mode, as an open catalog's is."""

    def __init__(self, path: str, busy_timeout: float, translate_error: ErrorTranslator) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._translate_error = translate_error
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self.watch = CommitWatch(path)

    @contextmanager
    def read(self) -> Iterator[PreparedReads]:
        """A transaction, in any thread; raises the errors of `Catalog.read`."""
        connection = self._take()
        try:
            with _translated(self._translate_error):
                connection.execute("BEGIN")
            yield PreparedReads(connection, self._translate_error)
            connection.execute("ROLLBACK")  # nothing was written; this only ends the transaction
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
        finally:
            self._give_back(connection)

    def schema(self) -> str | None:
        """The number of the database's schema, as `migrate` counts them; None if it is not in WAL mode."""
        connection = self._take()
        try:
            with _translated(self._translate_error):
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
                found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(found[0]) if found and mode == "wal" else None
        finally:
            self._give_back(connection)

    def last_commit(self) -> int | None:
        return self.watch.last_commit()

    def open_probe(self) -> None:
        """`last_commit` does not wait."""

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self.watch.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        with _translated(self._translate_error):
            connection = _connect(self._path, self._busy_timeout)
            connection.execute(f"PRAGMA cache_size=-{_CACHE}")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()


class CommitWatch:
    """Checks whether any process has committed to the database at `path`, without waiting for a disk or a
    lock: it reads the header of the log's index, which all processes share in memory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def last_commit(self) -> int | None:
        """A number that is another one after each commit, for one thread at a time; None if it cannot be read
        now.
        """
        try:
            if self._connection is None:
                self._connection = _connect(self._path, timeout=0)
            (number,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return None
        return int(number)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _connect(path: str, timeout: float) -> sqlite3.Connection:
    """A connection to an existing file, which only reads."""
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw",  # does not create a missing file
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only=ON")
    return connection


def sqlite_driver(tx: Session) -> sqlite3.Connection | None:
    """SQLite's own connection of a transaction, which has all changes of its session; None on PostgreSQL."""
    tx.flush()
    known: sqlite3.Connection | None = tx.info.get(_DRIVER)
    if known is not None:
        return known
    driver = tx.connection().connection.dbapi_connection
    return driver if isinstance(driver, sqlite3.Connection) else None


def set_driver(tx: Session, driver: sqlite3.Connection) -> None:
    """Looks it up once for all statements of a session that ends with its transaction."""
    tx.info[_DRIVER] = driver


def run_prepared(
    connection: sqlite3.Connection, statement: Query, parameters: Mapping[str, object]
) -> Sequence[Any]:
    """The rows of a statement that is built once, in the connection's transaction. (`Any`: named tuples.)"""
    return _compiled_query(statement).run(connection, parameters)


def run_select(tx: Reads, statement: Query, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
    """The rows of a statement on tables, including this transaction's changes. (`Any`: typed by columns.)"""
    if isinstance(tx, PreparedReads):
        return tx.select(statement, parameters)
    driver = sqlite_driver(tx)
    if driver is not None:  # takes a tenth of the time of SQLAlchemy's own execution
        return run_prepared(driver, statement, parameters)
    definition = statement.definition() if isinstance(statement, NamedStatement) else statement
    return tx.connection().execute(definition, parameters).all()


class _CompiledQuery:
    """A statement in SQLite's form, and the functions that convert its columns to the values of
    SQLAlchemy.
    """

    def __init__(self, text: StatementText, conversions: Sequence[Callable[[Any], object] | None]) -> None:
        """(`Any`: of any column.)"""
        self._sql, self._names, self._constants = text.sql, text.parameters, text.constants
        named = namedtuple("_Row", text.columns)  # type: ignore[misc]
        self._row: Callable[[Sequence[object]], Any] = named._make
        self._conversions = [(number, convert) for number, convert in enumerate(conversions) if convert]

    def run(self, connection: sqlite3.Connection, parameters: Mapping[str, object]) -> list[Any]:
        """(`Any`: named tuples.)"""
        values = [parameters[name] if name in parameters else self._constants[name] for name in self._names]
        return [self._converted(row) for row in connection.execute(self._sql, values).fetchall()]

    def _converted(self, row: tuple[object, ...]) -> Any:
        values = list(row)
        for number, convert in self._conversions:
            values[number] = convert(values[number])
        return self._row(values)


@lru_cache(maxsize=256)
def _compiled_query(statement: Query) -> _CompiledQuery:
    if isinstance(statement, NamedStatement):
        text = statement.text()
        return _CompiledQuery(text, [CONVERSIONS[kind] if kind else None for kind in text.columns.values()])
    from adaptry.storage.catalog.statement_compiler import compile_statement, conversions_of

    return _CompiledQuery(compile_statement(statement), conversions_of(statement))


@contextmanager
def _translated(translate_error: ErrorTranslator) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate_error(error) or error from error
