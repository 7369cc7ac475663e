"""Two runners on one registry that execute jobs with injected faults one after another. A new process is
started only for one that was killed.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry import open_dir
from adaptry.jobs.engine import FILE
from adaptry.operations.transfer import push
from adaptry.storage.local import LocalRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.runners import (
    FailpointGate,
    RunnerProcess,
    has_steps,
    live_processes,
    make_merge_registry,
    wait_until,
)
from adaptry.testing.samples import tiny_lora

from .clocks import Clock

LEASE = 2.0  # seconds after which a silent runner counts as dead
_MEMORY = 3 << 30
_UNDER_WAY = "status IN ('PENDING', 'ENQUEUED')"


def a_registry(folder: Path, scraps: Path, catalog: str | None = None) -> LocalRegistry:
    """A registry with everything that each kind of job needs."""
    registry = make_merge_registry(folder, scraps, catalog=catalog)
    push(registry, open_dir(tiny_lora(scraps / "voice", hidden=32, seed=5)), "acme/voice")
    rooted = tiny_lora(scraps / "rooted", hidden=32, config={"use_rslora": True})
    push(registry, open_dir(rooted), "acme/rooted")
    return registry


@dataclass(eq=False)
class Player:
    """A runner, possibly with its own clock, started as if by a server. The registry identifies it by the
    amount of `memory` that it reports, PostgreSQL by the `name` of its connections and those of its steps.
    """

    runner: RunnerProcess
    clock: Clock | None
    memory: int
    name: str

    @property
    def pid(self) -> int:
        return self.runner.process.pid

    def has_steps(self) -> bool:
        return has_steps(self.pid)

    def kill(self) -> None:
        """Kills only the runner; its steps keep running."""
        os.kill(self.pid, signal.SIGKILL)

    def lose_its_server(self) -> None:
        """Closes the standard input, as the end of its server would."""
        process = self.runner.process
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None


class Stage:
    """A registry in a folder, optionally with its catalog in PostgreSQL, and a gate that both runners and
    their steps pass.

    With `has_clocks`, each runner has its own clock, which makes its waiting four times as expensive.
    """

    def __init__(self, folder: Path, postgres: PostgresServer | None, *, has_clocks: bool) -> None:
        self._postgres = postgres
        self._database = postgres.create_migrated() if postgres else ""
        self._folder = folder
        self.data = folder / "data"
        catalog = postgres.url(self._database) if postgres else None
        self.registry = a_registry(self.data, folder / "scraps", catalog)
        self.gate = FailpointGate(folder / "gate")
        self._players: list[Player] = []
        self._has_clocks = has_clocks
        self._started = 0
        self._is_abandoned = False

    def ready(self) -> tuple[Player, Player]:
        """Two running runners; faults are injected into only one of them."""
        for dead in [player for player in self._players if not live_processes(player.pid)]:
            dead.runner.kill()
            self._players.remove(dead)
        while len(self._players) < 2:
            self.enter()
        first, second = self._players
        wait_until(lambda: self.hears(first) and self.hears(second), "two runners")
        wait_until(lambda: len(self.registry.jobs.runners()) == 2, "the dead to be forgotten")
        return first, second

    def enter(self) -> Player:
        """Starts a runner."""
        self._started += 1
        clock = Clock(self._folder / f"clock-{self._started}") if self._has_clocks else None
        memory, name = _MEMORY + self._started, f"player-{self._started}"
        started = RunnerProcess(
            self.data,
            "--until-eof",
            "--memory",
            str(memory),
            lease=LEASE,
            environ={**(clock.environ if clock else {}), **self.gate.environ, "PGAPPNAME": name},
        )
        self._players.append(Player(started, clock, memory, name))
        return self._players[-1]

    def leave(self, player: Player) -> None:
        """Stops a runner and waits for its end."""
        self._players.remove(player)
        assert player.runner.stop() == 0
        # A killed copy of the process with torch takes a moment to return its memory.
        wait_until(lambda: not live_processes(player.pid), "its processes to be gone")
        assert not self.hears(player)

    def whose(self, process: int) -> tuple[Player, Player]:
        """The runner to which a process belongs (the runner itself, or one of its steps), and the other
        runner.
        """
        mine = next(each for each in self._players if process in live_processes(each.pid))
        return mine, next(each for each in self._players if each is not mine)

    def hears(self, player: Player) -> bool:
        """Whether the registry has had a recent heartbeat of a runner."""
        return any(each.memory == player.memory for each in self.registry.jobs.runners())

    def put_to_sleep(self, player: Player) -> None:
        """Suspends the runner and its steps while they hold no database lock."""

        def sleeps() -> bool:
            player.runner.freeze()
            if self._is_without_locks(player):
                return True
            player.runner.resume()
            return False

        wait_until(sleeps, "the runner to hold no lock")

    def is_idle(self) -> bool:
        """Whether the engine has ended all of its workflows."""
        if self._postgres:
            asked = f"SELECT count(*) FROM dbos.workflow_status WHERE {_UNDER_WAY}"
            return self._postgres.execute(asked, self._database) == [(0,)]
        with closing(sqlite3.connect(self.data / FILE, timeout=30)) as file:
            asked = f"SELECT count(*) FROM workflow_status WHERE {_UNDER_WAY}"
            return bool(file.execute(asked).fetchone() == (0,))

    @property
    def is_usable(self) -> bool:
        return not self._is_abandoned

    def close(self) -> None:
        """Ends the runners and forgets them."""
        if self._is_abandoned:
            return
        self.gate.open()
        for player in [each for each in self._players if live_processes(each.pid)]:
            self.leave(player)
        assert self.registry.jobs.runners() == ()
        self.registry.close()

    @contextmanager
    def unless_broken(self) -> Iterator[None]:
        """An error in the block ends the stage, since its state is unknown."""
        try:
            yield
        except BaseException:
            self._is_abandoned = True
            for player in self._players:
                player.runner.kill()
            self.registry.close()
            raise

    def _is_without_locks(self, player: Player) -> bool:
        if self._postgres:
            # A process that only waits for a lock would get it while suspended, and keep it for a minute,
            # until PostgreSQL ends the connection. One lock of the engine blocks no one: some runner holds it
            # nearly all the time, between two checks for overdue work.
            asked = (
                f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{player.name}' AND state <>"
                " 'idle' AND query NOT LIKE 'SELECT pg_try_advisory_xact_lock%'"
            )
            return self._postgres.execute(asked, self._database) == [(0,)]
        return all(map(_can_be_written, (self.data / "catalog.sqlite", self.data / FILE)))


def _can_be_written(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)) as file:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        file.execute("ROLLBACK")
    return True
