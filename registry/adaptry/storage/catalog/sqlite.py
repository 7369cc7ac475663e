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
from threading import RLock
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from adaptry.core.errors import AdaptryError, CorruptData, StorageFull, Unavailable
from adaptry.core.files.locks import FileLock
from adaptry.storage.catalog import disk_reserve
from adaptry.storage.catalog.dialect import (
    ContextFactory,
    DatabaseDialect,
    busy_error,
    separate_writes,
    wait_readable,
)
from adaptry.storage.catalog.group_commit import GroupCommit
from adaptry.storage.catalog.in_use import IN_USE, PRIVATE, in_use_file
from adaptry.storage.catalog.prepared import PreparedReaders

_WRITES = "adaptry_writes"  # the execution option of connections whose transactions write: True, or _NOTES
_NOTES = "notes"  # commits that a power failure may undo
_LOOKS = 0.05  # seconds between checks for commits of other processes
_FORBIDDEN = "adaptry_forbidden"  # marks the errors of triggers that refuse changes


def open_database(url: str, busy_timeout: float) -> DatabaseDialect:
    """The database of a URL: a file, or in memory."""
    in_memory = url in ("sqlite://", "sqlite:///:memory:")
    # Options of create_engine. A server has more threads than a pool has connections; no thread waits.
    options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {"max_overflow": -1}
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout, "check_same_thread": False, "cached_statements": 512},
        **options,
    )
    _prepare(engine, is_durable=not in_memory)
    # One connection is the whole database in memory, so its users take turns.
    lock = RLock()
    writers, nondurable = (engine.execution_options(**{_WRITES: writes}) for writes in (True, _NOTES))
    reading: ContextFactory = (lambda: lock) if in_memory else nullcontext
    return DatabaseDialect(
        readers=engine,
        writers=writers,
        open_counters=partial(_open_counters, None if in_memory else make_url(url).database),
        read_context=reading,
        # SQLite's own writers poll with growing pauses, so one among many may never get its turn.
        write=(
            separate_writes(reading, writers, nondurable)
            if in_memory
            else GroupCommit(writers, nondurable, busy_timeout).write
        ),
        open_context=partial(_opening, url),
        hold=partial(_hold, url),
        after_migrate=lambda connection: None,
        translate_error=partial(_translate_error, url),
        notify=lambda session: None,  # listeners poll the file
        listen=_listen_in_memory if in_memory else partial(_listen, make_url(url).database or ""),
        prepared=None if in_memory else _prepared_readers(url, busy_timeout),
    )


def _open_counters(catalog: str | None) -> Engine:
    from adaptry.storage.catalog.sqlite_counters import open_counters  # servers alone count requests

    return open_counters(catalog)


def _prepared_readers(url: str, busy_timeout: float) -> PreparedReaders:
    return PreparedReaders(make_url(url).database or "", busy_timeout, partial(_translate_error, url))


def path_of(url: str) -> Path | None:
    """The file that a URL names; None for another kind of database, and for one in memory."""
    if not url.startswith("sqlite:///"):
        return None
    path = make_url(url).database
    return Path(path) if path and path != ":memory:" else None


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
            wait_readable(_LOOKS, stop.fileno())


def _listen_in_memory(stop: socket.socket) -> Iterator[bool]:
    """Yields nothing: no other process can write to a database in memory."""
    while True:
        wait_readable(1.0, stop.fileno())
        yield False


def _prepare(engine: Engine, *, is_durable: bool) -> None:
    """Sets up every connection of the engine; `is_durable` requires a file that survives a power failure."""

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver must not begin transactions itself; `begin` below does
        for pragma in ("foreign_keys=ON", "synchronous=FULL", "journal_mode=WAL", "cache_size=-4000"):
            connection.execute(f"PRAGMA {pragma}")
        if is_durable:
            _check_durable(connection)
            if _is_nearly_full(connection):
                # Checkpoint the log after every commit: otherwise it grows to 4 MiB.
                connection.execute("PRAGMA wal_autocheckpoint=1")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that becomes a writer fails at once if another wrote in the meantime, so writers take the
        # lock first.
        writes = connection.get_execution_options().get(_WRITES)
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            if writes:
                # Set each time, since connections are used for both; in WAL mode the next FULL commit syncs
                # both.
                driver.execute(f"PRAGMA synchronous={'NORMAL' if writes == _NOTES else 'FULL'}")
            driver.execute(
                "BEGIN IMMEDIATE" if writes else "BEGIN"
            )  # like SQLAlchemy, at a tenth of the cost
        except sqlite3.Error as error:
            raise DBAPIError("BEGIN", None, error) from error


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
def _opening(url: str) -> Iterator[None]:
    """Only one process at a time creates a database: enabling WAL fails instead of waiting for others."""
    path = make_url(url).database
    if not path or path == ":memory:":
        yield
        return
    opening = Path(f"{path}.opening")
    try:
        lock = FileLock.acquire_exclusive(opening, mode=PRIVATE)
    except StorageFull as error:
        raise _full(url) from error.__cause__
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


def _hold(url: str) -> Callable[[], None]:
    """Marks the database as open in this process until the result is called. Waits while it is being
    replaced.
    """
    path = make_url(url).database
    if not path or path == ":memory:":
        return lambda: None
    try:
        return FileLock.acquire_shared(in_use_file(Path(path)), mode=PRIVATE).release
    except StorageFull:  # no space for the lock file; reading must still work
        return lambda: None
    except Unavailable as error:
        raise _unusable(path, error.__cause__) from error


def _unusable(path: str, error: BaseException | None) -> Unavailable:
    why = getattr(error, "strerror", None) or "it cannot be locked"
    return Unavailable(f"cannot open a registry there: {path}: {why}; choose another folder")


def _full(url: str) -> StorageFull:
    what_then = "free some space and try again; stored data is unchanged and readable"
    return StorageFull(
        f"no space left for {make_url(url).database}; {what_then}"
        " (`adaptry gc` deletes what no version needs)",
        public_message=f"no space left for the registry's database; {what_then}",
    )


def _is_full(url: str) -> bool:
    path = make_url(url).database
    return bool(path) and path != ":memory:" and disk_reserve.is_full(Path(str(path)).parent)


def _translate_error(url: str, error: BaseException) -> AdaptryError | None:
    if str(error).startswith(f"{_FORBIDDEN}: "):
        return Unavailable(str(error).removeprefix(f"{_FORBIDDEN}: "))
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return busy_error()
        case sqlite3.SQLITE_FULL:
            return _full(url)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR if _is_full(url):
            # SQLite's error if it cannot create the files beside a database (-wal, -shm).
            return _full(url)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return CorruptData(
                f"{make_url(url).database} is not a sound SQLite database: {error}; restore a backup",
                public_message="the registry's database is damaged; its administrator has the details",
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PERM:
            return Unavailable(
                f"cannot use the database {make_url(url).database}: {error}",
                public_message="the registry's database cannot be used; its administrator has the details",
            )
    return None
