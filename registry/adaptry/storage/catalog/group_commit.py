"""Group commit: concurrent writers of one process share a transaction, and so one flush to disk.

Writers take turns. While others wait, a writer does not commit, but leaves the transaction to the next one.
The last commits for all, and only then do they return. Each writer's changes are a savepoint: if it raises,
only they are undone. No reader sees any of the changes before all are on the disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from adaptry.core.errors import Unavailable, copies_of
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.dialect import busy_error
from adaptry.storage.catalog.writer_transaction import Driver, WriterTransaction

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlmodel import Session

Result = TypeVar("Result")
_MAX_WRITERS = 16  # maximum writers in one transaction: the first and other processes wait for the last


class GroupConnection(Protocol):
    """The connection of a process's writers, opened when a transaction begins and kept for the next one.
    Only the group ends its transactions.
    """

    @property
    def driver(self) -> Driver:
        """Runs prepared statements. It is the same object during a transaction."""
        ...

    def sqlalchemy_connection(self) -> Connection:
        """SQLAlchemy's connection, in the same transaction."""
        ...

    def begin(self, *, is_durable: bool) -> None:
        """Begins a transaction that has the database's lock of writers."""
        ...

    def save(self) -> None:
        """Begins a writer's savepoint."""
        ...

    def keep(self, *, is_alone: bool) -> None:
        """Ends the savepoint. Raises the error of each change, unless `is_alone`: then the commit, which
        follows at once, may raise it.
        """
        ...

    def is_open_after(self, error: BaseException) -> bool:
        """Whether the transaction is still open after a writer's error, so that the others' changes can be
        committed.
        """
        ...

    def undo(self) -> None:
        """Undoes the changes since the savepoint, and ends it."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None:
        """Closes what is open; the next transaction opens it again."""
        ...


@dataclass(eq=False)
class _Group:
    """An open transaction and its writers. It `is_lost` once the database itself has rolled it back, as
    SQLite does on a full disk. `failure` is why it was not committed, once it `is_over`.
    """

    is_durable: bool
    writers: int = 0
    has_changes: bool = False
    is_lost: bool = False
    is_settled: bool = True
    """Whether all changes so far have succeeded, so that an error of the next one is not theirs."""
    failure: BaseException | None = None
    is_over: threading.Event = field(default_factory=threading.Event)


class GroupCommit:
    """The writers of a database, each of which waits up to `timeout` seconds for its turn."""

    def __init__(self, connection: GroupConnection, timeout: float) -> None:
        self._connection = connection  # belongs to the writer that has the turn
        self._timeout = timeout
        self._lock = threading.Lock()  # guards the next three
        self._is_taken = self._is_closed = False
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
            with self._savepoint(group, is_single=True) as transaction:
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
            is_single = len(changes) == 1
            outcomes = [self._outcome(group, change, is_single) for change in changes if not group.is_lost]
        except BaseException as error:  # Ctrl-C
            self._pass_on(group, error)
            raise
        failures = [one for one in outcomes if isinstance(one, Exception)]
        is_undone = group.is_lost or len(failures) == len(changes)
        with suppress(Exception):  # it is stored as the group's failure
            self._pass_on(group, failures[-1] if is_undone else None)
        group.is_over.wait()
        if group.failure is None:
            return outcomes
        if not isinstance(group.failure, Exception):
            raise group.failure
        return [*copies_of(group.failure, len(changes))]

    @property
    def waiting(self) -> int:
        """The number of writers that wait for their turn."""
        return len(self._queue)

    def _take_turn(self) -> None:
        """Waits until it is this writer's turn. Raises `Unavailable`."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = threading.Event()
            self._queue.append(turn)
        try:
            turn.wait(self._timeout)
        except BaseException as error:  # Ctrl-C
            if not self._leave_queue(turn):
                if self._group:
                    self._pass_on(self._group, error)
                else:
                    self._wake_next()
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

    def _wake_next(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
                return
            if self._is_closed:
                self._connection.close()
            self._is_taken = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn without a transaction. Raises `Unavailable`."""
        self._take_turn()
        try:
            yield
        finally:
            self._wake_next()

    def run_if_idle(self, action: Callable[[], object]) -> None:
        """Calls `action` in a turn, unless a writer has one."""
        with self._lock:
            if self._is_taken:
                return
            self._is_taken = True
        try:
            action()
        finally:
            self._wake_next()

    def close(self) -> None:
        """Closes the connection; it is no longer kept for the next group."""
        with self._lock:
            self._is_closed = True
            if not self._is_taken:
                self._connection.close()

    def _begin(self, is_durable: bool) -> _Group:
        try:
            self._connection.begin(is_durable=is_durable)
        except BaseException:
            self._wake_next()
            raise
        self._group = group = _Group(is_durable)
        return group

    def _pass_on(self, group: _Group, error: BaseException | None) -> None:
        """Ends the turn of one or more writers: either the next writer continues, or all changes are
        committed.
        """
        group.has_changes |= error is None
        if not group.is_lost:
            with self._lock:
                may_continue = group.is_durable and group.is_settled and group.writers < _MAX_WRITERS
                if self._queue and may_continue:
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
                self._connection.commit() if is_committed else self._connection.rollback()
                is_ended = True
        except BaseException as failure:
            group.failure = failure
            raise
        finally:
            if not is_ended:  # the transaction may still be open in it
                self._connection.close()
            group.is_over.set()
            self._wake_next()

    def _outcome(
        self, group: _Group, change: Callable[[Session], Result], is_single: bool
    ) -> Result | Exception:
        try:
            with self._savepoint(group, is_single=is_single) as transaction:
                result = change(transaction)
        except Exception as error:  # noqa: BLE001  (its writer raises it)
            return error
        return result

    @contextmanager
    def _savepoint(self, group: _Group, *, is_single: bool) -> Iterator[Session]:
        """A transaction whose changes become part of the group's at the end of the block. `is_single`: its
        turn ends then.
        """
        connection = self._connection
        transaction = WriterTransaction(connection.driver, connection.sqlalchemy_connection)
        group.writers += 1
        try:
            connection.save()
            yield cast("Session", transaction)  # it has the methods of one
            transaction.commit()
            is_alone = is_single and group.writers == 1 and not self._queue
            connection.keep(is_alone=is_alone)
            group.is_settled = not is_alone
        except BaseException as error:
            group.is_lost = True  # unless all changes are undone, nothing is committed
            if not connection.is_open_after(error):
                transaction.invalidate()  # there is no savepoint to roll back to
                raise
            transaction.close()
            connection.undo()
            group.is_lost = False
            raise
        transaction.close()
