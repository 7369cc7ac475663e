"""`Catalog`: an open database, up to date and safe to use, that gives out transactions.

    with catalog.write() as tx:
        line = adapters.find(tx, name)

Opening migrates the schema, refuses one from the future, and checks that commits are durable. A writer waits
for the one before it, then gives up as `Unavailable`; readers see one moment and wait for nobody.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool
from sqlmodel import Session

from adaptry.catalog import sqlite
from adaptry.catalog.migrate import migrate

Transaction = Session
"""What the functions of this package work in; opaque to everyone else."""


class Catalog:
    """The database at `url`: `sqlite:///path`, or `sqlite://` for one in memory that lives as long as this."""

    def __init__(self, url: str, busy_timeout: float = 30.0) -> None:
        """Raises `Incompatible` (a newer schema), `Unavailable` (cannot be opened, or would not be durable)."""
        self.url = url
        in_memory = url in ("sqlite://", "sqlite:///:memory:")
        # Keywords of create_engine. A server has more threads than a pool has places: none of them waits for one.
        options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {"max_overflow": -1}
        engine = create_engine(
            url,
            connect_args={"timeout": busy_timeout, "check_same_thread": False, "cached_statements": 512},
            **options,
        )
        sqlite.prepare(engine, is_durable=not in_memory)
        # One connection is the whole database in memory, so its users take turns.
        self._turn: AbstractContextManager[Any] = RLock() if in_memory else nullcontext()
        self._readers = engine
        weakref.finalize(self, engine.dispose)  # whoever forgets a catalog need not close it
        self._writers = engine.execution_options(**{sqlite.WRITES: True})
        self._noters = engine.execution_options(**{sqlite.WRITES: sqlite.NOTES})
        with sqlite.opening(url), sqlite.errors_translated(url):
            migrate(self._readers, self._writers)

    @classmethod
    def at(cls, path: Path, busy_timeout: float = 30.0) -> Catalog:
        """The SQLite file at `path`, made if it is missing; its folder must exist."""
        return cls(f"sqlite:///{path.absolute()}", busy_timeout)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that sees one moment and changes nothing."""
        with self._turn, sqlite.errors_translated(self.url), _session(self._readers) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block, or rolls back where it raises.

        It holds the write lock from its beginning, so what it reads stays true until it commits.
        """
        with self._turn, sqlite.errors_translated(self.url), _writing(self._writers) as session:
            yield session

    @contextmanager
    def note(self) -> Iterator[Transaction]:
        """As `write`, for what is worth no wait for the disk: a power cut may undo it, whole, and nothing before it."""
        with self._turn, sqlite.errors_translated(self.url), _writing(self._noters) as session:
            yield session

    def close(self) -> None:
        """Gives the database's files back to the system."""
        self._readers.dispose()


@contextmanager
def _writing(engine: Engine) -> Iterator[Session]:
    with _session(engine) as session:
        session.connection()  # begins now, not at the first statement
        yield session
        session.commit()


def _session(engine: Engine) -> Session:
    # Rows are read within their transaction and turned into values; nothing is refreshed behind our back.
    return Session(engine, expire_on_commit=False, autoflush=True)
