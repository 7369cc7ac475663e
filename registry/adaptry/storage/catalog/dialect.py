"""A kind of database: all that `Catalog` has to know of the one it stands on.

SQLite and PostgreSQL are the two there are, each in a module of its own; tables, statements and migrations
are the same for both. A kind promises that one writer is at work at a time, in all processes, and that a
reader sees one moment and waits for nobody.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Connection, Engine

from adaptry.core.errors import AdaptryError, Unavailable

HAS_EVENTS = "adaptry_happened"
"""In the `info` of a transaction that has recorded an event."""
ContextFactory = Callable[[], AbstractContextManager[object]]
"""Makes what surrounds a piece of work."""
CommitListener = Callable[[socket.socket], Iterator[bool]]
"""Listens for events that other processes commit: each step takes about a second at most and says whether
there were any. It waits on a socket beside whatever else it waits for, and its next step comes at once when
that can be read.
"""


def wait_readable(seconds: float, *files: int) -> None:
    """Waits so long, or until a file can be read. (`select.select` takes only files below 1024.)"""
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        selector.select(seconds)


def writer_lock(patience: float) -> ContextFactory:
    """The writers of one process wait here for each other: a database has them wait less justly, and dearer.
    Raises `Unavailable` after so many seconds.
    """
    lock = Lock()

    @contextmanager
    def locked() -> Iterator[None]:
        if not lock.acquire(timeout=patience):
            raise busy_error()
        try:
            yield
        finally:
            lock.release()

    return locked


def busy_error() -> Unavailable:
    return Unavailable("the registry's database is busy with another writer; try again in a moment")


@dataclass(frozen=True, slots=True)
class DatabaseDialect:
    """An opened database.

    `readers` and `writers` give connections for such transactions, `nondurable_writers` for writes that a
    power cut may undo; `read_context` and `write_context` surround them. `open_context` surrounds the check
    of the schema and its migration, after which `after_migrate` inspects the new schema. `hold` registers
    that this process has the database open, until what it returns is called. `translate_error` gives our
    error for a driver's, and None for a bug of ours. `notify`, called in a transaction that recorded an
    event, tells other processes of it; they receive it by `listen`.
    """

    readers: Engine
    writers: Engine
    nondurable_writers: Engine
    read_context: ContextFactory
    write_context: ContextFactory
    open_context: ContextFactory
    hold: Callable[[], Callable[[], None]]
    after_migrate: Callable[[Connection], None]
    translate_error: Callable[[BaseException], AdaptryError | None]
    notify: Callable[[Connection], None]
    listen: CommitListener
