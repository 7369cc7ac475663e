"""Prepared reads: the statements of nearly every request, run on SQLite without a session.

A statement is compiled once, from the same SQLAlchemy object that runs in every other transaction, to
SQLite's own text with the conversions of its columns, unless its text is stored (`statement_texts`). It runs
on a read-only connection, and its results are as current as in any other transaction: what is kept of them
(`PreparedReads.kept`) is dropped after any commit.

This module does not import SQLAlchemy; its callers do if they have SQLAlchemy's statements or a session.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar
from urllib.parse import quote

from adaptry.core.errors import AdaptryError
from adaptry.storage.catalog.statement_texts import BINDINGS, CONVERSIONS, PreparedStatement, S, StatementText

if TYPE_CHECKING:
    from sqlalchemy import CompoundSelect, Delete, Row, Select, Update
    from sqlmodel import Session

    from adaptry.storage.catalog.postgres_writes import PostgresWriter

    Reads: TypeAlias = Session | "PreparedReads"

Result = TypeVar("Result")
_CACHE = 1000  # KiB of the database kept by each connection; the system keeps the rest
_SEARCH_CACHE = 2000  # the same for connections that search: one search may read 1.5 MB
DRIVER = "adaptry_driver"
"""Key in the `info` of a transaction whose connection of the driver is known."""
_MAX_CACHED = 1024  # values of one kind that a connection keeps
_IDLE_CONNECTIONS = 4  # connections kept for later; more are opened if more threads read at once
_IDLE_SEARCH_CONNECTIONS = 2
_IDLE = 1.0  # seconds after which an idle connection need not keep pages
ErrorTranslator = Callable[[BaseException], AdaptryError | None]
Query: TypeAlias = "Select[Any] | CompoundSelect[Any] | PreparedStatement[Any]"
"""(`Any`: statements are typed by their columns.)"""


class _Reader:
    """A read-only connection, and the values that were kept from its reads since the last commit."""

    def __init__(self, path: str, timeout: float, cache: int) -> None:
        self.connection = _connect(path, timeout)
        self.connection.execute(f"PRAGMA cache_size=-{cache}")
        self.last_used = 0.0  # when it was last given back (`time.monotonic`)
        self.is_small = False  # has not been used since `shrink`
        self._commit: int | None = None
        self._kept: dict[str, dict[Any, Any]] = {}

    def drop_outdated(self) -> None:
        """Drops the kept values if any process has committed since. Must be called in a transaction."""
        (commit,) = self.connection.execute("PRAGMA data_version").fetchone()
        if commit != self._commit:
            self._kept.clear()
        self._commit = commit

    def shrink(self) -> None:
        """Frees the pages of the database that the connection keeps in memory."""
        self.connection.execute("PRAGMA shrink_memory")
        self.is_small = True

    def kept(self, kind: str) -> dict[Any, Any]:
        """(`Any`: keys and values of any kind.)"""
        kept = self._kept.setdefault(kind, {})
        if len(kept) > _MAX_CACHED:
            kept.clear()
        return kept


class PreparedReads:
    """A read-only transaction of prepared reads, on a snapshot."""

    is_postgres: ClassVar[bool] = False

    def __init__(self, reader: _Reader, translate_error: ErrorTranslator) -> None:
        self._reader = reader
        self._translate_error = translate_error
        self._is_checked = False

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        """The rows of a statement that is built and compiled once. Raises the errors of `Catalog.read`.

        (`Any`: named tuples of the statement's columns.)
        """
        try:
            return run_prepared(self._reader.connection, statement, parameters)
        except sqlite3.Error as error:
            raise self._translate_error(error) or error from error

    def kept(self, kind: str) -> dict[Any, Any]:
        """A place for values that were computed from this snapshot. Values of an earlier transaction are
        still there only if no process has committed since, because the snapshot is then the same. Raises the
        errors of `Catalog.read`.

        (`Any`: keys and values of this kind.)
        """
        if not self._is_checked:
            with _translated(self._translate_error):
                self._reader.drop_outdated()
            self._is_checked = True
        return self._reader.kept(kind)


def key_of(statement: Query, parameters: Mapping[str, object]) -> tuple[Any, ...]:
    """Equal for equal statements with equal parameters: the statement, the parameters' names, and their
    values. (`Any`: values of any type.)
    """
    values = (tuple(one) if isinstance(one, list) else one for one in parameters.values())
    return statement, *parameters, *values


class _SharedReads(PreparedReads):
    """A transaction for several functions: equal statements run once, since their rows cannot differ."""

    def __init__(self, reader: _Reader, translate_error: ErrorTranslator) -> None:
        super().__init__(reader, translate_error)
        self._results: dict[tuple[Any, ...], Sequence[Any]] = {}

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        """(`Any`: named tuples of the statement's columns.)"""
        key = key_of(statement, parameters)
        rows = self._results.get(key)
        if rows is None:
            rows = self._results[key] = super().select(statement, parameters)
        return rows


class PreparedReaders:
    """Connections to the database file at `path`, which must be in WAL mode, as an open catalog's is."""

    def __init__(self, path: str, busy_timeout: float, translate_error: ErrorTranslator) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._translate_error = translate_error
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []
        self._idle_for_searches: list[_Reader] = []
        self._shared = threading.local()
        self.watch = SqliteCommitWatch(path)

    @contextmanager
    def read(self, *, is_search: bool = False, about: object = None) -> Iterator[PreparedReads]:
        """A transaction, in any thread; raises the errors of `Catalog.read`."""
        shared: PreparedReads | None = getattr(self._shared, "reads", None)
        if shared is not None:
            yield shared
            return
        with self._transaction(PreparedReads, is_search=is_search) as reads:
            yield reads

    @contextmanager
    def read_together(self) -> Iterator[None]:
        """One transaction for all that this thread reads during the block."""
        with self._transaction(_SharedReads) as reads:
            self._shared.reads = reads
            try:
                yield
            finally:
                self._shared.reads = None

    @contextmanager
    def _transaction(self, kind: type[PreparedReads], *, is_search: bool = False) -> Iterator[PreparedReads]:
        reader = self._take(is_search=is_search)
        connection = reader.connection
        try:
            with _translated(self._translate_error):
                connection.execute("BEGIN")
            yield kind(reader, self._translate_error)
            connection.execute("ROLLBACK")  # nothing was written; this only ends the transaction
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
        finally:
            self._release(reader, is_search=is_search)

    def schema(self) -> str | None:
        """The number of the database's schema, as `migrate` counts them; None if it is not in WAL mode."""
        reader = self._take()
        connection = reader.connection
        try:
            with _translated(self._translate_error):
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
                found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(found[0]) if found and mode == "wal" else None
        finally:
            self._release(reader)

    def last_commit(self) -> int | None:
        return self.watch.last_commit()

    def read_with_snapshot(
        self, read: Callable[[], Result], *, is_search: bool, about: object
    ) -> tuple[Result, None]:
        """See `Catalog.read_with_snapshot`."""
        return read(), None

    def open_probe(self) -> None:
        """None: `last_commit` does not block."""

    def close(self) -> None:
        with self._lock:
            idle = [*self._idle, *self._idle_for_searches]
            self._idle, self._idle_for_searches = [], []
        for reader in idle:
            reader.connection.close()
        self.watch.close()

    def _take(self, *, is_search: bool = False) -> _Reader:
        with self._lock:
            idle = self._idle_for_searches if is_search else self._idle
            if idle:
                reader = idle.pop()
                reader.is_small = False
                return reader
        with _translated(self._translate_error):
            return _Reader(self._path, self._busy_timeout, _SEARCH_CACHE if is_search else _CACHE)

    def shrink(self) -> None:
        """Frees the pages that idle connections keep. The system keeps them too, so that reading them again
        takes microseconds each.
        """
        for idle in (self._idle, self._idle_for_searches):
            with self._lock:
                now = time.monotonic()
                unused = [reader for reader in idle if now - reader.last_used > _IDLE and not reader.is_small]
                idle[:] = [reader for reader in idle if reader not in unused]
            for reader in unused:
                reader.shrink()
                self._release(reader, is_search=idle is self._idle_for_searches)

    def _release(self, reader: _Reader, *, is_search: bool = False) -> None:
        reader.last_used = time.monotonic()
        with self._lock:
            idle = self._idle_for_searches if is_search else self._idle
            if len(idle) < (_IDLE_SEARCH_CONNECTIONS if is_search else _IDLE_CONNECTIONS):
                idle.append(reader)
                return
        reader.connection.close()


class SqliteCommitWatch:
    """Checks whether any process has committed to the database at `path`, without waiting for a disk or a
    lock: it reads the header of the log's index, which all processes share in memory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def last_commit(self) -> int | None:
        """A number that changes with each commit; None if it cannot be read now. Call it from one thread at a
        time.
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


def driver_of(tx: Session) -> sqlite3.Connection | PostgresWriter | None:
    """The object that runs prepared statements in a transaction, after all changes of its session. None for a
    session that only reads, on PostgreSQL.
    """
    tx.flush()
    known: sqlite3.Connection | PostgresWriter | None = tx.info.get(DRIVER)
    if known is not None:
        return known
    driver = tx.connection().connection.dbapi_connection
    return driver if isinstance(driver, sqlite3.Connection) else None


def run_prepared(
    connection: sqlite3.Connection, statement: Query, parameters: Mapping[str, object]
) -> Sequence[Any]:
    """The rows of a statement that is built once, in the connection's transaction. (`Any`: named tuples.)"""
    return compiled(statement).rows(connection, parameters)


def run_select(tx: Reads, statement: Query, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
    """The rows of a statement on tables, including this transaction's changes. (`Any`: typed by columns.)"""
    if isinstance(tx, PreparedReads):
        return tx.select(statement, parameters)
    driver = driver_of(tx)
    if isinstance(driver, sqlite3.Connection):  # takes a tenth of the time of SQLAlchemy's own execution
        return run_prepared(driver, statement, parameters)
    if driver is not None:
        return driver.select(statement, parameters)
    return tx.connection().execute(definition_of(statement), parameters).all()


def definition_of(statement: S | PreparedStatement[S]) -> S:
    """The statement of SQLAlchemy."""
    return statement.definition if isinstance(statement, PreparedStatement) else statement


class CompiledStatement:
    """A statement in SQLite's form, with the conversions of its parameters and columns."""

    def __init__(self, text: StatementText, conversions: Sequence[Callable[[Any], object] | None]) -> None:
        """(`Any`: of any column.)"""
        self._sql, self._constants = text.sql, text.constants
        self._names = [(name, BINDINGS.get(text.bindings.get(name, ""))) for name in text.parameters]
        named = namedtuple("_Row", text.columns)  # type: ignore[misc]
        self._row: Callable[[Sequence[object]], Any] = partial(tuple.__new__, named)  # `_make` takes longer
        self._conversions = [(number, convert) for number, convert in enumerate(conversions) if convert]

    def rows(self, connection: sqlite3.Connection, parameters: Mapping[str, object]) -> list[Any]:
        """(`Any`: named tuples.)"""
        found = connection.execute(self._sql, self._values(parameters)).fetchall()
        return [self._converted(row) for row in found] if self._conversions else list(map(self._row, found))

    def change(self, connection: sqlite3.Connection, parameters: Mapping[str, object]) -> int:
        """Returns the number of changed rows."""
        return connection.execute(self._sql, self._values(parameters)).rowcount

    def change_each(self, connection: sqlite3.Connection, parameters: Iterable[Mapping[str, object]]) -> None:
        connection.executemany(self._sql, map(self._values, parameters))

    def _values(self, parameters: Mapping[str, object]) -> list[object]:
        values = []
        for name, convert in self._names:
            value = parameters[name] if name in parameters else self._constants[name]
            values.append(value if convert is None else convert(value))
        return values

    def _converted(self, row: tuple[object, ...]) -> Any:
        values = list(row)
        for number, convert in self._conversions:
            values[number] = convert(values[number])
        return self._row(values)


def compiled(
    statement: Query | Update | PreparedStatement[Update] | PreparedStatement[Delete],
) -> CompiledStatement:
    """The statement in SQLite's form, which is made once."""
    if not isinstance(statement, PreparedStatement):
        return _compiled(statement)
    if statement.compiled is None:
        text = statement.text
        kinds = [CONVERSIONS[kind] if kind else None for kind in text.columns.values()]
        statement.compiled = CompiledStatement(text, kinds)
    made: CompiledStatement = statement.compiled
    return made


@lru_cache(maxsize=512)
def _compiled(statement: Select[Any] | CompoundSelect[Any] | Update) -> CompiledStatement:
    """(`Any`: typed by its columns.)"""
    from adaptry.storage.catalog.statement_compiler import compile_statement, conversions_of

    return CompiledStatement(compile_statement(statement), conversions_of(statement))


@contextmanager
def _translated(translate_error: ErrorTranslator) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate_error(error) or error from error
