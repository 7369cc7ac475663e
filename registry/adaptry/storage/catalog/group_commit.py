"""Group commit: concurrent writers of one process share a transaction, and so one flush to disk.

Writers take turns. While others wait, a writer does not commit, but leaves the transaction to the next one.
The last commits for all, and only then do they return. Each writer's changes are a savepoint: if it raises,
only they are undone. Nobody sees any of the changes before all are on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from adaptry.core.errors import Unavailable
from adaptry.storage.catalog.dialect import busy_error
from adaptry.storage.catalog.prepared import set_driver

_MOST = 16  # maximum writers in one transaction: the first and other processes wait for the last


@dataclass(eq=False)
class _Group:
    """An open transaction and its writers. It `is_lost` once SQLite itself has rolled it back, as it does on
    a full disk. `failure` is why it was not committed, once it `is_over`.
    """

    connection: Connection
    is_durable: bool
    writers: int = 0
    has_changes: bool = False
    is_lost: bool = False
    failure: BaseException | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        driver = self.connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        self.driver: sqlite3.Connection = driver

    def notice_rollback(self) -> None:
        self.is_lost = not self.driver.in_transaction


class GroupCommit:
    """The writers of a SQLite file, each of which waits up to `patience` seconds for its turn."""

    def __init__(self, durable: Engine, nondurable: Engine, patience: float) -> None:
        self._durable = durable
        self._nondurable = nondurable
        self._patience = patience
        self._lock = threading.Lock()  # guards the next two
        self._is_taken = False
        self._queue: deque[threading.Event] = deque()
        self._group: _Group | None = None  # belongs to the writer that has the turn

    @contextmanager
    def write(self, is_durable: bool) -> Iterator[Session]:
        """Runs one writer's transaction; it is committed when this returns.

        A transaction that need not be durable joins an open one, but none joins it, since its commit is
        quick.
        """
        self._take_turn()
        group = self._group or self._begin(is_durable)
        try:
            with _savepoint(group) as session:
                yield session
        except Exception as error:
            self._pass_on(group, error)
            # The error may be due to an earlier writer's change. Until that is committed, the caller would
            # read the old state and fail again; if it is never committed, the error is wrong.
            group.is_over.wait()
            if group.failure is not None and group.failure is not error:
                raise group.failure from error
            raise
        except BaseException as error:  # Ctrl-C
            self._pass_on(group, error)
            raise
        self._pass_on(group, None)
        group.is_over.wait()
        if group.failure is not None:
            raise group.failure

    @property
    def waiting(self) -> int:
        """How many writers wait for their turn."""
        return len(self._queue)

    def _take_turn(self) -> None:
        """Raises `Unavailable`."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = threading.Event()
            self._queue.append(turn)
        try:
            turn.wait(self._patience)
        except BaseException as error:  # Ctrl-C
            if not self._leave_queue(turn):
                if self._group:
                    self._pass_on(self._group, error)
                else:
                    self._give_turn()
            raise
        if self._leave_queue(turn):
            raise busy_error()

    def _leave_queue(self, turn: threading.Event) -> bool:
        """Whether the writer was still queued; if not, it has the turn."""
        with self._lock:
            if turn.is_set():
                return False
            self._queue.remove(turn)
            return True

    def _give_turn(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._is_taken = False

    def _begin(self, is_durable: bool) -> _Group:
        try:
            connection = (self._durable if is_durable else self._nondurable).connect()
            try:
                connection.begin()
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._give_turn()
            raise
        self._group = group = _Group(connection, is_durable)
        return group

    def _pass_on(self, group: _Group, error: BaseException | None) -> None:
        """Ends the writer's turn: the next one continues, or all changes are committed."""
        group.writers += 1
        group.has_changes |= error is None
        if not group.is_lost:
            with self._lock:
                if self._queue and group.is_durable and group.writers < _MOST:
                    self._queue.popleft().set()
                    return
        else:
            ended = Unavailable("the database ended a transaction; try again in a moment")
            group.failure = error if isinstance(error, Exception) else ended
        self._group = None
        try:
            if group.has_changes and group.failure is None:
                group.connection.commit()
        except BaseException as failure:
            group.failure = failure
            group.connection.invalidate()  # the transaction may still be open in it
            raise
        finally:
            try:
                group.connection.close()
            finally:
                group.is_over.set()
                self._give_turn()


@contextmanager
def _savepoint(group: _Group) -> Iterator[Session]:
    """A session whose changes become part of the group's transaction at the end of the block.

    The session makes a savepoint of its own, within this one, when it is used for more than prepared
    statements: that takes ten times as long.
    """
    session = Session(group.connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
    _run(group, "SAVEPOINT writer")
    set_driver(session, group.driver)
    try:
        yield session
        session.commit()
        _run(group, "RELEASE writer")
    except BaseException:
        group.notice_rollback()
        if group.is_lost:
            session.invalidate()  # there is no savepoint to roll back to
            raise
        group.is_lost = True  # unless all changes are undone, nothing is committed
        session.close()
        _run(group, "ROLLBACK TO writer")
        _run(group, "RELEASE writer")
        group.is_lost = False
        raise
    session.close()


def _run(group: _Group, statement: str) -> None:
    """Runs a statement without SQLAlchemy, whose errors it raises."""
    try:
        group.driver.execute(statement)
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from error
