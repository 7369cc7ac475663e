"""Everything specific to SQLite: how a connection is set up, how a writer begins, what its errors mean.

Durability is checked at the start: WAL with `synchronous=NORMAL` loses acknowledged commits at a power
failure, and some file systems silently refuse WAL. Both raise `Unavailable`.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING

from adaptry.core.errors import AdaptryError, CorruptData, StorageFull, Unavailable
from adaptry.core.files.locks import FileLock
from adaptry.storage.catalog import disk_reserve
from adaptry.storage.catalog.catalog_lock import IN_USE, PRIVATE, catalog_lock_file
from adaptry.storage.catalog.dialect import (
    DatabaseDialect,
    busy_error,
    separate_writes,
    wait_readable,
)
from adaptry.storage.catalog.group_commit import GroupCommit
from adaptry.storage.catalog.prepared import PreparedReaders
from adaptry.storage.catalog.sqlite_writer import SqliteGroupConnection, WriterConnection

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_POLL_INTERVAL = 0.05  # seconds between checks for commits of other processes
_FORBIDDEN = "adaptry_forbidden"  # marks the errors of triggers that refuse changes


def open_database(url: str, busy_timeout: float) -> DatabaseDialect:
    """The database of a URL: a file, or in memory."""
    path = _file_of(url)
    return _in_memory(url) if path is None else _in_file(url, path, busy_timeout)


def _in_file(url: str, path: str, busy_timeout: float) -> DatabaseDialect:
    engine = _EngineMaker(path, busy_timeout)
    # SQLite's own writers poll with growing pauses, so one among many may never get its turn.
    connection = SqliteGroupConnection(partial(_connect_writer, path, busy_timeout))
    writers = GroupCommit(connection, busy_timeout)
    prepared = PreparedReaders(path, busy_timeout, partial(_translate_error, url))

    def has_schema(number: str) -> bool:
        with writers.turn():
            return connection.has_schema(number)

    def shrink() -> None:
        prepared.shrink()
        writers.run_if_idle(connection.shrink)

    return DatabaseDialect(
        open_readers=engine,
        open_writers=lambda: _writing(engine()),
        has_schema=has_schema,
        open_counters=partial(_open_counters, path),
        read_context=nullcontext,
        write=writers.write,
        open_context=partial(_opening, path),
        hold=partial(_hold, path),
        after_migrate=lambda connection: None,
        translate_error=partial(_translate_error, url),
        notify=lambda session: None,  # listeners poll the file
        listen=partial(_listen, path),
        prepared=prepared,
        close=writers.close,
        write_each=writers.write_each,
        shrink=shrink,
    )


def _in_memory(url: str) -> DatabaseDialect:
    # One connection is the whole database, so its users take turns.
    lock = RLock()
    engine = _EngineMaker(None, 0)
    from adaptry.storage.catalog.sqlite_engine import NOTES, WRITES

    return DatabaseDialect(
        open_readers=engine,
        open_writers=lambda: _writing(engine()),
        has_schema=lambda number: False,
        open_counters=partial(_open_counters, None),
        read_context=lambda: lock,
        write=separate_writes(
            lambda: lock, _writing(engine()), engine().execution_options(**{WRITES: NOTES})
        ),
        open_context=nullcontext,
        hold=lambda: lambda: None,
        after_migrate=lambda connection: None,
        translate_error=partial(_translate_error, url),
        notify=lambda session: None,
        listen=_listen_in_memory,
        prepared=None,
        close=lambda: None,
    )


class _EngineMaker:
    """Makes one engine, when it is first needed. Safe to use from many threads."""

    def __init__(self, path: str | None, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._lock = Lock()
        self._engine: Engine | None = None

    def __call__(self) -> Engine:
        from adaptry.storage.catalog import sqlite_engine  # imports SQLAlchemy; few commands need it

        with self._lock:
            if self._engine is None:
                self._engine = sqlite_engine.create(self._path, self._busy_timeout)
            return self._engine


def _writing(engine: Engine) -> Engine:
    from adaptry.storage.catalog.sqlite_engine import WRITES

    return engine.execution_options(**{WRITES: True})


def _open_counters(catalog: str | None) -> Engine:
    from adaptry.storage.catalog.sqlite_counters import open_counters  # servers alone count requests

    return open_counters(catalog)


def _file_of(url: str) -> str | None:
    """The file of a URL; None for a database in memory."""
    path = url.removeprefix("sqlite://").removeprefix("/")
    return path if path and path != ":memory:" else None


def path_of(url: str) -> Path | None:
    """The file that a URL names; None for another kind of database, and for one in memory."""
    path = _file_of(url) if url.startswith("sqlite:///") else None
    return Path(path) if path is not None else None


def _connect_writer(path: str, busy_timeout: float) -> WriterConnection:
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout,
        check_same_thread=False,
        cached_statements=512,
        factory=WriterConnection,
    )
    try:
        set_up(connection, is_durable=True)
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: sqlite3.Connection, *, is_durable: bool) -> None:
    """Sets up a new connection; `is_durable` requires a file that survives a power failure."""
    connection.isolation_level = None  # the driver must not begin transactions itself
    for pragma in ("foreign_keys=ON", "synchronous=FULL", "journal_mode=WAL", "cache_size=-4000"):
        connection.execute(f"PRAGMA {pragma}")
    if is_durable:
        _check_durable(connection)
        if _is_nearly_full(connection):
            # Checkpoint the log after every commit: otherwise it grows to 4 MiB.
            connection.execute("PRAGMA wal_autocheckpoint=1")


def copy(source: Path, target: Path) -> None:
    """Copies a snapshot of a database to one file, while others may write. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)
        there.execute("PRAGMA journal_mode=DELETE")  # otherwise opening it would create a second file
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listen(path: str, stop: socket.socket) -> Iterator[bool]:
    """SQLite sends no notifications, but reading `data_version`, which every commit changes, takes
    microseconds.
    """
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        version: int | None = None
        newest: int | None = None
        while True:
            (now,) = connection.execute("PRAGMA data_version").fetchone()
            last = newest
            if now != version:
                version = now
                (newest,) = connection.execute("SELECT max(seq) FROM events").fetchone()
            yield newest != last
            wait_readable(_POLL_INTERVAL, stop.fileno())


def _listen_in_memory(stop: socket.socket) -> Iterator[bool]:
    """Yields nothing: no other process can write to a database in memory."""
    while True:
        wait_readable(1.0, stop.fileno())
        yield False


def find_problems(connection: Connection) -> Iterator[str]:
    """Faults that SQLite finds in its file and in references between rows."""
    for (result,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if result != "ok":
            yield f"SQLite: {result}"
    for table, *_ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"a row of {table} refers to a missing row"


def forbid_changes(connection: Connection, tables: Iterable[str], reason: str) -> None:
    """Makes every change of a row raise `Unavailable` with this `reason`; reads still work."""
    quoted = reason.replace("'", "''")
    for table in tables:
        for change in ("INSERT", "UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f'CREATE TRIGGER "{_FORBIDDEN}_{table}_{change.lower()}" BEFORE {change} ON "{table}" '
                f"BEGIN SELECT RAISE(ABORT, '{_FORBIDDEN}: {quoted}'); END"
            )


def why_forbidden(connection: Connection) -> str | None:
    """The reason that `forbid_changes` was given."""
    query = f"SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '{_FORBIDDEN}%' LIMIT 1"
    trigger = connection.exec_driver_sql(query).scalar()
    quoted = trigger and trigger.partition(f"'{_FORBIDDEN}: ")[2].rpartition("'); END")[0]
    return quoted.replace("''", "'") if quoted else None


def _is_nearly_full(connection: sqlite3.Connection) -> bool:
    _, _, path = connection.execute("PRAGMA database_list").fetchone()
    return disk_reserve.is_nearly_full(Path(path).parent)


def _check_durable(connection: sqlite3.Connection) -> None:
    found = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    if found != {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}:
        raise Unavailable(
            f"this database would not survive a power failure ({found}); put it on a local file system "
            "(network file systems do not support SQLite's write-ahead log)"
        )


@contextmanager
def _opening(path: str) -> Iterator[None]:
    """Only one process at a time creates a database: enabling WAL fails instead of waiting for others."""
    opening = Path(f"{path}.opening")
    try:
        lock = FileLock.acquire_exclusive(opening, mode=PRIVATE)
    except StorageFull as error:
        raise _full(path) from error.__cause__
    except Unavailable as error:
        raise _unusable(str(opening), error.__cause__) from error.__cause__
    with lock:
        _make_private(path)
        yield


def _make_private(path: str) -> None:
    """Makes the database readable by its owner only, and with it the files that SQLite creates beside it,
    which get its mode.

    A file that belongs to another user keeps its mode, which only its owner can change.
    """
    # Do not open an existing file: closing it would drop this process's SQLite locks on it.
    with suppress(OSError):  # SQLite will report the error
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    for end in ("", "-wal", "-shm", ".opening", IN_USE):
        file = Path(f"{path}{end}")
        with suppress(OSError):
            if file.stat().st_mode & 0o777 != PRIVATE:
                file.chmod(PRIVATE)


def _hold(path: str) -> Callable[[], None]:
    """Marks the database as open in this process until the result is called. Waits while it is being
    replaced.
    """
    try:
        return FileLock.acquire_shared(catalog_lock_file(Path(path)), mode=PRIVATE).release
    except StorageFull:  # no space for the lock file; reading must still work
        return lambda: None
    except Unavailable as error:
        raise _unusable(path, error.__cause__) from error


def _unusable(path: str, error: BaseException | None) -> Unavailable:
    why = getattr(error, "strerror", None) or "it cannot be locked"
    return Unavailable(f"cannot open a registry there: {path}: {why}; choose another folder")


def _full(path: str | None) -> StorageFull:
    what_then = "free some space and try again; stored data is unchanged and readable"
    return StorageFull(
        f"no space left for {path}; {what_then} (`adaptry gc` deletes what no version needs)",
        public_message=f"no space left for the registry's database; {what_then}",
    )


def _is_full(path: str | None) -> bool:
    return path is not None and disk_reserve.is_full(Path(path).parent)


def _translate_error(url: str, error: BaseException) -> AdaptryError | None:
    if str(error).startswith(f"{_FORBIDDEN}: "):
        return Unavailable(str(error).removeprefix(f"{_FORBIDDEN}: "))
    code, path = getattr(error, "sqlite_errorcode", 0) & 0xFF, _file_of(url)
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return busy_error()
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR if _is_full(path):
            # SQLite's error if it cannot create the files beside a database (-wal, -shm).
            return _full(path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return CorruptData(
                f"{path} is not a sound SQLite database: {error}; restore a backup",
                public_message="the registry's database is damaged; the server's log has the details",
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PERM:
            return Unavailable(
                f"cannot use the database {path}: {error}",
                public_message="the registry's database cannot be used; the server's log has the details",
            )
    return None
