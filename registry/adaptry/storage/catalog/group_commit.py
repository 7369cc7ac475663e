"""Group commit: concurrent writers of one process share a transaction, and so one flush to disk.

Writers take turns. While others wait, a writer does not commit, but leaves the transaction to the next one.
The last commits for all, and only then do they return. Each writer's changes are a savepoint: if it raises,
only they are undone. Nobody sees any of the changes before all are on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import TYPE_CHECKING, TypeVar, cast

from adaptry.core.errors import Unavailable, copies_of
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.dialect import busy_error
from adaptry.storage.catalog.writer_transaction import WriterTransaction

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlmodel import Session

Result = TypeVar("Result")
_MOST = 16  # maximum writers in one transaction: the first and other processes wait for the last


class WriterConnection(sqlite3.Connection):
    """A connection of the group of writers. Only the group ends its transactions, by SQL statements; `commit`
    and `rollback` do nothing, because SQLAlchemy rolls back when it first uses a connection.
    """

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass


def begin_write(connection: sqlite3.Connection, *, is_durable: bool) -> None:
    """Begins a transaction that may change rows. A reader that becomes a writer fails at once if another
    wrote in the meantime, so writers take the lock first.
    """
    # Set each time, since connections are used for both; in WAL mode the next FULL commit syncs both.
    connection.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")


@dataclass(eq=False)
class _Group:
    """An open transaction and its writers. It `is_lost` once SQLite itself has rolled it back, as it does on
    a full disk. `failure` is why it was not committed, once it `is_over`.
    """

    connection: _Connection
    is_durable: bool
    writers: int = 0
    has_changes: bool = False
    is_lost: bool = False
    failure: BaseException | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def notice_rollback(self) -> None:
        self.is_lost = not self.connection.driver.in_transaction


class _Connection:
    """A connection of the driver, with SQLAlchemy's view of it if a writer needed one."""

    def __init__(self, driver: WriterConnection) -> None:
        self.driver = driver
        self._engine: Engine | None = None
        self._seen: Connection | None = None

    def as_seen(self) -> Connection:
        """SQLAlchemy's connection, in the transaction of the driver."""
        from adaptry.storage.catalog import sqlite_engine  # with SQLAlchemy; few commands need it

        if self._engine is None:
            self._engine = sqlite_engine.over(self.driver)
        if self._seen is None:
            self._seen = self._engine.connect()
            self._seen.begin()
        return self._seen

    def end(self, statement: str) -> None:
        """Ends the transaction, by `COMMIT` or `ROLLBACK`."""
        if self.driver.in_transaction:
            self.driver.execute(statement)
        if self._seen is not None:
            self._seen.close()
            self._seen = None


class GroupCommit:
    """The writers of a SQLite file, each of which waits up to `patience` seconds for its turn."""

    def __init__(self, connect: Callable[[], WriterConnection], patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._idle: _Connection | None = None  # belongs to the writer that has the turn
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
            with _savepoint(group) as transaction:
                yield transaction
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

    def write_each(self, changes: Sequence[Callable[[Session], Result]]) -> list[Result | Exception]:
        """Runs durable transactions of several writers in one turn. Returns the result of each, which is then
        committed, or the error for which it was undone. Raises `Unavailable` if the turn does not come.
        """
        self._take_turn()
        group = self._group or self._begin(is_durable=True)
        try:
            outcomes = [_outcome(group, change) for change in changes if not group.is_lost]
        except BaseException as error:  # Ctrl-C
            self._pass_on(group, error)
            raise
        failures = [one for one in outcomes if isinstance(one, Exception)]
        is_undone = group.is_lost or len(failures) == len(changes)
        with suppress(Exception):  # it is stored as the group's failure
            self._pass_on(group, failures[-1] if is_undone else None, len(changes))
        group.is_over.wait()
        if group.failure is None:
            return outcomes
        if not isinstance(group.failure, Exception):
            raise group.failure
        return [*copies_of(group.failure, len(changes))]

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

    def has_schema(self, number: str) -> bool:
        """Whether the database has the schema of that number, by its own record. Raises `sqlite3.Error`."""
        self._take_turn()
        try:
            connection = self._opened()
            found = connection.driver.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
            ).fetchone()
            if found == (0,):
                return False
            return connection.driver.execute("SELECT version_num FROM alembic_version").fetchall() == [
                (number,)
            ]
        finally:
            self._give_turn()

    def shrink(self) -> None:
        """Frees the pages that the connection keeps, unless a writer uses it."""
        with self._lock:
            if self._is_taken or self._idle is None:
                return
            self._is_taken = True
        try:
            self._idle.driver.execute("PRAGMA shrink_memory")
        finally:
            self._give_turn()

    def close(self) -> None:
        """Closes the connection that is kept for the next group."""
        with self._lock:
            if not self._is_taken and self._idle is not None:
                self._idle.driver.close()
                self._idle = None

    def _opened(self) -> _Connection:
        if self._idle is None:
            self._idle = _Connection(self._connect())
        return self._idle

    def _begin(self, is_durable: bool) -> _Group:
        try:
            connection = self._opened()
            begin_write(connection.driver, is_durable=is_durable)
        except BaseException:
            self._give_turn()
            raise
        self._group = group = _Group(connection, is_durable)
        return group

    def _pass_on(self, group: _Group, error: BaseException | None, writers: int = 1) -> None:
        """Ends the turn of one or more writers: the next one continues, or all changes are committed."""
        group.writers += writers
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
        is_ended = False
        try:
            if not group.is_lost:
                is_committed = group.has_changes and group.failure is None
                group.connection.end("COMMIT" if is_committed else "ROLLBACK")
                is_ended = True
        except BaseException as failure:
            group.failure = failure
            raise
        finally:
            if not is_ended:  # the transaction may still be open in it
                self._idle = None
                group.connection.driver.close()
            group.is_over.set()
            self._give_turn()


def _outcome(group: _Group, change: Callable[[Session], Result]) -> Result | Exception:
    try:
        with _savepoint(group) as transaction:
            result = change(transaction)
    except Exception as error:  # noqa: BLE001  (its writer raises it)
        return error
    return result


@contextmanager
def _savepoint(group: _Group) -> Iterator[Session]:
    """A transaction whose changes become part of the group's at the end of the block."""
    driver = group.connection.driver
    transaction = WriterTransaction(driver, group.connection.as_seen)
    driver.execute("SAVEPOINT writer")
    try:
        yield cast("Session", transaction)  # it has the methods of one
        transaction.commit()
        driver.execute("RELEASE writer")
    except BaseException:
        group.notice_rollback()
        if group.is_lost:
            transaction.invalidate()  # there is no savepoint to roll back to
            raise
        group.is_lost = True  # unless all changes are undone, nothing is committed
        transaction.close()
        driver.execute("ROLLBACK TO writer")
        driver.execute("RELEASE writer")
        group.is_lost = False
        raise
    transaction.close()
