"""Watches for commits of any process, on the event loop, without waiting for a disk or a thread.

On SQLite, this reads shared memory. On PostgreSQL, it is a query of one round trip. All requests that arrive
before the query is sent share it, so its answer is not older than any of them.

A read on PostgreSQL reports its own snapshot. Two snapshots can be compared unless the server crashed between
them: after a crash, new transactions may get the numbers of lost ones. A crash ends all of the server's
processes. So a read's snapshot is kept with the process that answered a query before it; if the same process
answers a later query, there was no crash in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from adaptry.storage.catalog.database import Catalog

if TYPE_CHECKING:
    from adaptry.storage.catalog.postgres_probe import SnapshotProbe

Commit: TypeAlias = int | str
"""Differs after each commit."""
OnCommit: TypeAlias = Callable[["Commit | None"], object]
"""Called with the last commit; None if it is unknown. Raises no errors."""
Result = TypeVar("Result")
Read: TypeAlias = "Callable[[], tuple[Result, Commit | None]]"
_RETRY_DELAY = 1.0  # seconds between two attempts to connect
_TIMEOUT = 5.0  # seconds without an answer after which a connection counts as broken
_Waiting: TypeAlias = list[OnCommit]


class CommitWatch:
    """Returns the last commit of a catalog. For use on the event loop only."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._remote = None if catalog.is_local else _RemoteWatch(catalog.open_probe)

    @property
    def is_immediate(self) -> bool:
        """Whether `last_known` is always the last commit."""
        return self._remote is None

    def last_known(self) -> Commit | None:
        """The last commit that is known without waiting; None if unknown. On PostgreSQL, there may be later
        ones: use data read as of this commit only if `ask` then reports the same commit.
        """
        return self._catalog.last_commit() if self._remote is None else self._remote.last

    def ask(self, then: OnCommit) -> None:
        """Calls `then` later with the last commit at a moment after this call. Only for PostgreSQL: on
        SQLite, `last_known` returns it.
        """
        assert self._remote is not None
        self._remote.ask(then)

    def with_commit(
        self, read: Callable[[], Result], *, is_search: bool = False, about: object = None
    ) -> Read[Result]:
        """A function for any thread that returns the result of `read` and the commit as of which it was read;
        None if that is unknown. Call this on the event loop, and the function afterwards. `about`: see
        `Catalog.read_prepared`.
        """
        if self._remote is None:
            commit = self._catalog.last_commit()
            return lambda: (read(), commit)
        process = self._remote.process

        def run() -> tuple[Result, Commit | None]:
            result, snapshot = self._catalog.read_with_snapshot(read, is_search=is_search, about=about)
            return result, f"{process} {snapshot.partition(' ')[2]}" if process and snapshot else None

        return run

    @property
    def reads_report_commit(self) -> bool:
        """Whether `with_commit` finds the last commit, so that there is no need to ask for it first."""
        return self._remote is not None and self._remote.process is not None

    def on_change(self, act: Callable[[Commit], object]) -> None:
        """Calls `act` whenever a new commit of PostgreSQL becomes known."""
        if self._remote is not None:
            self._remote.observers.append(act)

    def note(self, commit: Commit) -> None:
        """Records the commit that a read saw. It is presumed to be the last one."""
        if self._remote is not None:
            self._remote.note(commit)

    async def last_commit(self) -> Commit | None:
        """Identifies the catalog's state at a moment after this call; None if it is unknown."""
        if self._remote is None:
            return self._catalog.last_commit()
        answer: asyncio.Future[Commit | None] = asyncio.get_running_loop().create_future()
        self._remote.ask(partial(_resolve, answer))
        return await answer

    def close(self) -> None:
        if self._remote is not None:
            self._remote.close()


class _RemoteWatch:
    """A `SnapshotProbe` on the event loop that runs at its first use; replaced if it breaks."""

    def __init__(self, open_probe: Callable[[], SnapshotProbe | None]) -> None:
        self._open = open_probe
        self._probe: SnapshotProbe | None = None
        self._connections = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.process: str | None = None  # identifies the database server's process and our connection
        self.observers: list[Callable[[Commit], object]] = []
        self.last: Commit | None = None
        self._next: _Waiting = []
        self._asked: deque[_Waiting] = deque()
        self._oldest: _Waiting | None = None
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, then: OnCommit) -> None:
        if self._probe is None:
            loop = asyncio.get_running_loop()
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect(loop))
            loop.call_soon(then, None)
            return
        if not self._next and self._loop is not None:
            self._loop.call_soon(self._send)
        self._next.append(then)

    def note(self, commit: Commit) -> None:
        if commit != self.last:
            self.last = commit
            for act in self.observers:
                act(commit)

    def close(self) -> None:
        """May be called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._lose)
                return
        self._lose()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._probe = await asyncio.to_thread(self._open)
        except OSError:
            await asyncio.sleep(_RETRY_DELAY)
        finally:
            self._connecting = None
        if self._probe is not None:
            self._connections += 1
            self._loop = loop
            loop.add_reader(self._probe.fileno(), self._receive)

    def _send(self) -> None:
        waiting, self._next = self._next, []
        self._asked.append(waiting)
        if self._probe is None or self._loop is None:
            self._lose()
            return
        try:
            self._probe.ask()
        except OSError:
            self._lose()
            return
        if self._timer is None:
            self._timer = self._loop.call_later(_TIMEOUT, self._check_oldest)

    def _receive(self) -> None:
        try:
            answers = self._probe.answers() if self._probe else []
        except OSError:
            self._lose()
            return
        for answer in answers:
            process, _, snapshot = answer.partition(" ")
            # After a crash of the server, a snapshot may look like one from before it.
            self.process = f"{self._connections} {process}"
            self.note(commit := f"{self.process} {snapshot}")
            _settle(self._asked.popleft(), commit)

    def _check_oldest(self) -> None:
        self._timer = None
        if not self._asked or self._loop is None:
            return
        if self._asked[0] is self._oldest:
            self._lose()
            return
        self._oldest = self._asked[0]
        self._timer = self._loop.call_later(_TIMEOUT, self._check_oldest)

    def _lose(self) -> None:
        """Closes the connection. Requests that wait for a commit from it are answered without one."""
        asked, self._asked = self._asked, deque()
        for waiting in asked:
            _settle(waiting, None)
        probe, self._probe = self._probe, None
        if probe is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(probe.fileno())
            probe.close()


def _settle(waiting: _Waiting, answer: Commit | None) -> None:
    for each in waiting:
        each(answer)


def _resolve(waiting: asyncio.Future[Commit | None], answer: Commit | None) -> None:
    if not waiting.done():  # its request was cancelled
        waiting.set_result(answer)
