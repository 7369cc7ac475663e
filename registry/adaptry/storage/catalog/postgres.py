"""Everything specific to PostgreSQL: how a connection is set up, how a writer begins, what its errors mean.

Writers take turns here too, by one advisory lock of the database, taken before anything is read. So data that
a writer reads stays valid until it commits, as in SQLite; conflicts between writers never require a retry;
and keys and events become visible in the order of their numbers. Readers see a snapshot (`REPEATABLE READ`,
read only) and never wait.

Text is compared byte by byte (`COLLATE "C"`), whatever the database's own locale is, because prefix searches
and the order of names depend on it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from adaptry.core.errors import (
    AdaptryError,
    CorruptData,
    Invalid,
    MissingDependency,
    StorageFull,
    TooLarge,
    Unavailable,
)
from adaptry.storage.catalog.dialect import (
    DatabaseDialect,
    busy_error,
    wait_readable,
)
from adaptry.storage.catalog.group_commit import GroupCommit
from adaptry.storage.catalog.prepared import DRIVER
from adaptry.storage.catalog.rows import name_postgres_conditions

if TYPE_CHECKING:
    from adaptry.storage.catalog.postgres_readers import PostgresReaders
    from adaptry.storage.catalog.postgres_writes import PostgresGroupConnection
    from adaptry.storage.catalog.prepared import ErrorTranslator

_WRITES = "adaptry_writes"  # the execution option of connections whose transactions write
_LOCK = int.from_bytes(b"adaptry", "big")
_READERS = 12  # connections of one process for readers with a session; more readers wait
_CHANNEL = "adaptry_events"
_NOTIFY = f"NOTIFY {_CHANNEL}".encode()  # delivered when the transaction commits, or never
# Seconds between polls for events without a notification, as behind a pooler without LISTEN.
_POLL_INTERVAL = 1.0
# Seconds without a statement after which a writer counts as dead and loses its lock.
_WRITER_IDLE_SECONDS = 60
_NOT_ANSWERING = (
    "the registry's database is not answering; try again in a moment (the server's log has the details)"
)
LIBPQ: dict[str, Any] = {  # for every connection, including the job engine's; `Any`: options have many types
    # A server that disappears silently is detected within a minute.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    # The name in pg_stat_activity, unless the address or PGAPPNAME gives another.
    "fallback_application_name": "adaptry",
}
_BY_PGBOUNCER = "prepared statement did not exist"
_NEEDED = {
    "synchronous_commit": "on",  # or any other value except `off`
    "fsync": "on",
    "full_page_writes": "on",
    "server_encoding": "UTF8",
}


def open_database(url: str, busy_timeout: float) -> DatabaseDialect:
    """The database of a URL; it must exist, and may be empty. Raises `Invalid`, `MissingDependency`."""
    address = _address(url)
    plain = address.set(drivername="postgresql")
    translate_error = partial(_translate_error, plain.render_as_string(hide_password=True))
    name_postgres_conditions()
    try:
        engine = create_engine(
            address,
            connect_args={"connect_timeout": max(2, int(busy_timeout)), **LIBPQ},
            pool_size=_READERS,
            max_overflow=0,
            pool_timeout=busy_timeout,
            pool_pre_ping=True,  # reconnects after a restart of the server, instead of failing
        )
    except ModuleNotFoundError as error:
        raise MissingDependency(f"PostgreSQL needs {error.name}: pip install 'adaptry[postgres]'") from error
    event.listen(engine, "connect", _check)
    event.listen(engine, "begin", partial(_begin, busy_timeout))
    # For migrations. Each statement sees committed data, and no other process commits while the lock is held.
    writers = engine.execution_options(isolation_level="READ COMMITTED", **{_WRITES: True})
    plain_address = plain.render_as_string(hide_password=False)
    prepared, writer = _on_the_driver(plain_address, busy_timeout, translate_error)
    changes = GroupCommit(writer, busy_timeout)
    return DatabaseDialect(
        open_readers=lambda: engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        ),
        open_writers=lambda: writers,
        has_schema=lambda number: False,
        open_counters=lambda: engine.execution_options(isolation_level="READ COMMITTED"),
        read_context=_in_thread,
        write=changes.write,
        write_each=changes.write_each,
        open_context=nullcontext,
        hold=lambda: lambda: None,  # the server itself knows its connections
        after_migrate=_compare_bytes,
        translate_error=translate_error,
        notify=lambda session: session.info[DRIVER].run(_NOTIFY),
        listen=partial(_listen, plain_address),
        prepared=prepared,
        close=changes.close,
        driver_error=writer.error,
    )


def _on_the_driver(
    address: str, busy_timeout: float, translate_error: ErrorTranslator
) -> tuple[PostgresReaders, PostgresGroupConnection]:
    import psycopg

    from adaptry.storage.catalog.postgres_readers import PostgresReaders
    from adaptry.storage.catalog.postgres_writes import PostgresGroupConnection, PostgresWriterConnection

    connect: dict[str, Any] = {  # options of the driver, which have many types
        "autocommit": True,
        "connect_timeout": max(2, int(busy_timeout)),
        # To drop statements that it prepared, the driver may use DEALLOCATE ALL, which drops ours too.
        "prepare_threshold": None,
        **LIBPQ,
    }

    def connect_writer() -> PostgresWriterConnection:
        connection = PostgresWriterConnection.connect(address, **connect)
        _check(connection)
        return connection

    return PostgresReaders(
        partial(psycopg.connect, address, **connect), busy_timeout, translate_error
    ), PostgresGroupConnection(connect_writer, _lock_statement(busy_timeout))


def find_problems(connection: Connection) -> Iterator[str]:
    """Violations of this module's promises; PostgreSQL itself checks references between rows."""
    for table, column, _ in _with_other_order(connection):
        yield f'{table}.{column} is not compared byte by byte (COLLATE "C")'


def _address(url: str) -> URL:
    try:
        return make_url(url).set(drivername="postgresql+psycopg")
    except ArgumentError as error:
        raise Invalid("not a database: expected postgresql://user@host:port/database") from error


@contextmanager
def _in_thread() -> Iterator[None]:
    """The context of reads with a session."""
    from adaptry.storage.catalog.loop_reads import require_thread

    require_thread()
    yield


def _check(connection: Any, record: ConnectionPoolEntry | None = None) -> None:
    """Refuses a database without durable commits. (`Any`: a connection of an optional driver.)"""
    settings = ", ".join(f"current_setting('{name}')" for name in _NEEDED)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {settings}")
        found = dict(zip(_NEEDED, cursor.fetchone(), strict=True))
    connection.rollback()
    if found["synchronous_commit"] != "off":
        found["synchronous_commit"] = "on"
    wrong = [f"{name} is {value}" for name, value in found.items() if value != _NEEDED[name]]
    if wrong:
        raise Unavailable(
            f"this PostgreSQL database would lose or garble acknowledged changes: {', '.join(wrong)};"
            f" required: {', '.join(f'{name}={value}' for name, value in _NEEDED.items())}"
        )


def _begin(busy_timeout: float, connection: Connection) -> None:
    if connection.get_execution_options().get(_WRITES):
        connection.exec_driver_sql(_lock_statement(busy_timeout))


def _lock_statement(busy_timeout: float) -> str:
    """Takes the lock of writers, at the beginning of a transaction."""
    return (
        f"SELECT set_config('lock_timeout', '{int(busy_timeout * 1000)}ms', true),"
        f" set_config('idle_in_transaction_session_timeout', '{_WRITER_IDLE_SECONDS}s', true),"
        f" pg_advisory_xact_lock({_LOCK})"
    )


def _listen(address: str, stop: socket.socket) -> Iterator[bool]:
    """Listens on its own connection, and polls once a second for events without a notification."""
    import psycopg

    with closing(psycopg.connect(address, autocommit=True, connect_timeout=10, **LIBPQ)) as connection:
        connection.execute(f"LISTEN {_CHANNEL}")
        newest: int | None = None
        while True:
            last = newest
            row = connection.execute("SELECT max(seq) FROM events", prepare=False).fetchone()
            newest = row[0] if row else None
            yield newest != last
            if not list(connection.notifies(timeout=0)):
                wait_readable(_POLL_INTERVAL, connection.fileno(), stop.fileno())
                list(connection.notifies(timeout=0))


def _with_other_order(connection: Connection) -> list[tuple[str, str, str]]:
    """Tables, columns and types of text that is compared in the database's own locale."""
    query = text(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')"
        " AND collation_name IS DISTINCT FROM 'C' ORDER BY table_name, ordinal_position"
    )
    return [(table, column, kind) for table, column, kind in connection.execute(query)]


def _compare_bytes(connection: Connection) -> None:
    """Called after a migration: sets the collation of new text columns."""
    for table, column, kind in _with_other_order(connection):
        connection.exec_driver_sql(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE {kind} COLLATE "C"')


def _translate_error(where: str, error: BaseException) -> AdaptryError | None:
    """Our error by SQLSTATE (PostgreSQL's documentation, appendix A); without one, the server was not
    reached.
    """
    if is_of_pooler(error):
        return Unavailable("the pooler in front of PostgreSQL loses prepared statements; try again")
    state = getattr(error, "sqlstate", None)
    if state is None and "NUL" in str(error):  # raised by the driver, before it connects
        state = "22021"
    if state is None and "invalid connection option" in str(error):  # raised by libpq for the address
        return Invalid(f"the address of the database {where} has an {_line(error)}; check its spelling")
    if state is None:
        is_lost = type(error).__name__ in ("OperationalError", "ConnectionTimeout")
        message = (
            f"cannot reach the database {where}: {_line(error)}; check that it is running,"
            " has disk space and a free connection, and that its address, name, user and password are right"
        )
        return Unavailable(message, public_message=_NOT_ANSWERING) if is_lost else None
    match state[:2], state:
        case _, "55P03" | "40001" | "40P01" | "25P03":
            return busy_error()
        case _, "22021":
            return Invalid("text cannot contain the character U+0000")
        case "54", "54000":
            return TooLarge(
                "a name or text is too long for an index of the registry's database (at most 2,700 bytes);"
                " shorten it"
            )
        case "53", "53100":
            return StorageFull("no space left for the registry's database; free some space and try again")
        case "XX", "XX001" | "XX002":
            message = f"the database {where} is damaged: {_line(error)}; restore a backup"
            return CorruptData(
                message,
                public_message="the registry's database is damaged; the server's log has the details",
            )
        case (("08" | "28" | "3D" | "3F" | "53" | "57" | "58"), _):
            return Unavailable(
                f"cannot use the database {where}: {_line(error)}", public_message=_NOT_ANSWERING
            )
        case _, "25006":
            return Unavailable(
                f"the database {where} may not be written to: {_line(error)};"
                " if it is a standby, use its primary",
                public_message=_NOT_ANSWERING,
            )
        case _, "42501":
            return Unavailable(
                f"the database {where} refuses this to its user: {_line(error)}; its tables should be"
                " owned by the role that Adaptry connects as",
                public_message=_NOT_ANSWERING,
            )
    return None


def is_of_pooler(error: BaseException) -> bool:
    """Whether a pooler has lost a prepared statement (26000, or 08P01 by PgBouncer itself), or has one of
    another client (42P05).
    """
    return getattr(error, "sqlstate", None) in ("26000", "42P05") or _BY_PGBOUNCER in str(error)


def _line(error: BaseException) -> str:
    """The error's message, without the statement and the driver's own advice."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return str(primary or str(error).partition("\n")[0])[:300]
