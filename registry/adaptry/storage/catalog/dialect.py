"""A kind of database: everything that `Catalog` needs to know about its database.

There are two, SQLite and PostgreSQL, each in its own module; tables, statements and migrations are the same
for both. A dialect promises that only one writer works at a time, across all processes, and that a reader
sees a snapshot and never waits.
"""

from __future__ import annotations

import selectors
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.prepared import PreparedReads

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlmodel import Session

    from adaptry.storage.catalog.postgres_probe import SnapshotProbe

Result = TypeVar("Result")
BEFORE_COMMIT = "adaptry_before_commit"
"""Key in the `info` of a transaction: functions of it that are called before its changes are committed."""
HAS_EVENTS = "adaptry_happened"
"""Key in the `info` of a transaction that has recorded an event."""
HAS_INDEX_UPDATES = "adaptry_index_updates"
"""Key in the `info` of a transaction after which the search index must be updated (`index_updates`)."""
ContextFactory = Callable[[], AbstractContextManager[object]]
"""Creates a context manager around a unit of work."""
SessionFactory: TypeAlias = "Callable[[bool], AbstractContextManager[Session]]"
JointWrite: TypeAlias = "Callable[[Sequence[Callable[[Session], Any]]], list[Any]]"
"""Runs several transactions together. (`Any`: each has its own type of result.)"""
CommitListener = Callable[[socket.socket], Iterator[bool]]
"""Listens for events that other processes commit: each step takes at most about a second and yields whether
there were any. A step also waits on the given socket, and returns at once when it becomes readable.
"""


def wait_readable(seconds: float, *files: int) -> None:
    """Waits for the given seconds, or until a file is readable. (`select.select` accepts only descriptors
    below 1024.)
    """
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        selector.select(seconds)


def separate_writes(turn: ContextFactory, durable: Engine, nondurable: Engine) -> SessionFactory:
    """A transaction for each writer, within `turn`."""
    from sqlmodel import Session

    @contextmanager
    def write(is_durable: bool) -> Iterator[Session]:
        with turn(), Session(durable if is_durable else nondurable, expire_on_commit=False) as session:
            session.connection()  # begins now, not at the first statement
            yield session
            session.commit()

    return write


def busy_error() -> Unavailable:
    return Unavailable("the registry's database is busy with another writer; try again in a moment")


class Readers(Protocol):
    """Connections for reads by prepared statements."""

    def read(self, *, is_search: bool = False, about: object = None) -> AbstractContextManager[PreparedReads]:
        """A read-only transaction on a snapshot, in any thread. `about`: see `Catalog.read_prepared`."""
        ...

    def read_together(self) -> AbstractContextManager[object]:
        """One transaction for all that this thread reads during the block."""
        ...

    def read_with_snapshot(
        self, read: Callable[[], Result], *, is_search: bool, about: object
    ) -> tuple[Result, str | None]:
        """See `Catalog.read_with_snapshot`."""
        ...

    def last_commit(self) -> int | None:
        """A number that changes with each commit of any process; None if it is unknown or finding it would
        block. Call it from one thread at a time.
        """
        ...

    def open_probe(self) -> SnapshotProbe | None:
        """A probe that finds it on an event loop without blocking; None if `last_commit` does not block.
        Raises `OSError`.
        """
        ...

    def close(self) -> None: ...


def _nothing() -> None:
    """The default of `shrink`."""


@dataclass(frozen=True)
class DatabaseDialect:
    """An open database.

    `open_readers` and `open_writers` make SQLAlchemy's engines, which give connections for read and write
    transactions; they are made when they are first needed. `has_schema` checks quickly whether the schema has
    that number; False means that it is unknown. `read_context` surrounds reads.
    `write` gives a session that is committed at the end of its block; its argument is whether the commit must
    survive a power failure. `write_each` commits several durable transactions together, and returns the
    result or the error of each; None if not supported. `open_context` surrounds the check of the schema
    and its migration, after which `after_migrate` inspects the new schema. `hold` registers that this process
    has the database open, until its result is called. `translate_error` returns our error for a driver's, or
    None for a programming error. `notify`, called in a transaction that recorded an event, notifies other
    processes, which receive it by `listen`. `prepared` reads by prepared statements; None for a database in
    memory. `open_counters` connects to the shared counts of requests, whose writers wait for no other writer.
    `driver_error` is raised by prepared statements. `close` closes what the engines do not. `shrink` frees
    memory of connections that are not in use.
    """

    open_readers: Callable[[], Engine]
    open_writers: Callable[[], Engine]
    has_schema: Callable[[str], bool]
    open_counters: Callable[[], Engine]
    read_context: ContextFactory
    write: SessionFactory
    open_context: ContextFactory
    hold: Callable[[], Callable[[], None]]
    after_migrate: Callable[[Connection], None]
    translate_error: Callable[[BaseException], AdaptryError | None]
    notify: Callable[[Session], None]
    listen: CommitListener
    prepared: Readers | None
    close: Callable[[], None]
    write_each: JointWrite | None = None
    driver_error: type[Exception] = sqlite3.Error
    shrink: Callable[[], None] = _nothing

    @cached_property
    def readers(self) -> Engine:
        return self.open_readers()

    @cached_property
    def writers(self) -> Engine:
        return self.open_writers()

    def dispose(self) -> None:
        """Closes all connections that are not in use."""
        if self.prepared:
            self.prepared.close()
        if "readers" in vars(self):
            self.readers.dispose()
        if "writers" in vars(self):
            self.writers.dispose()
        self.close()
