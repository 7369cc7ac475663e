"""A job to disturb, and what must be true of it whatever happened: it ended once, as if nothing had.

What it should come to is computed in the test's own process, without runners, on another registry.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlmodel import select

from adaptry import open_dir, push
from adaptry.catalog.rows import EventRow, JobStepRow
from adaptry.errors import NotFound
from adaptry.integrity import verify
from adaptry.jobs.desk import Desk
from adaptry.jobs.doing import do
from adaptry.jobs.engine import FILE
from adaptry.jobs.records import JobInfo, JobOrder
from adaptry.jobs.tasks import parse_task
from adaptry.local import LocalRegistry
from adaptry.refs import AdapterName
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.running import MERGE, Runner, registry_with_work, runner, wait_until
from adaptry.testing.samples import tiny_lora

MADE = AdapterName.parse("acme/made")
ORDERS: Mapping[str, JobOrder] = {
    "merge": MERGE,
    "combine": JobOrder(
        kind="combine", task={"inputs": ["acme/tone", "acme/voice=0.5"], "to": str(MADE), "method": "ties"}
    ),
    "export": JobOrder(kind="export", task={"source": "acme/rooted", "runtime": "sglang", "to": str(MADE)}),
    "fingerprint": JobOrder(kind="fingerprint", task={"base": "org/tiny"}),
    "verify": JobOrder(kind="verify", task={}),
}
_UNDER_WAY = "status IN ('PENDING', 'ENQUEUED')"


def a_registry(
    folder: Path, scraps: Path, kind: str, shards: int, catalog: str | None = None
) -> LocalRegistry:
    """One that has what a job of that kind needs, its base in so many files."""
    registry = registry_with_work(folder, scraps, catalog=catalog, shards=shards)
    if kind == "combine":
        push(registry, open_dir(tiny_lora(scraps / "voice", hidden=32, seed=5)), "acme/voice")
    if kind == "export":
        rooted = tiny_lora(scraps / "rooted", hidden=32, config={"use_rslora": True})
        push(registry, open_dir(rooted), "acme/rooted")
    return registry


@cache
def undisturbed(kind: str, shards: int) -> dict[str, Any]:
    """What a job of that kind comes to where nothing happens. (`Any`: JSON.)"""
    order = ORDERS[kind]
    task = parse_task(kind, order.task)
    with TemporaryDirectory() as folder:
        registry = a_registry(Path(folder, "data"), Path(folder, "scraps"), kind, shards)
        before: dict[str, Any] = {}
        desk = Desk(registry, before, "cpu", Path(folder), {}, lambda *at: None, lambda text: None)
        first = do(kind, task, "start", desk)
        before["start"] = first.result
        for piece in first.pieces:
            before[piece.name] = do(kind, task, piece.name, desk).result
        came_to = do(kind, task, "end", desk).result if first.pieces else first.result
        registry.close()
    return json.loads(json.dumps(came_to))  # type: ignore[no-any-return]  # JSON, as the catalog has it


@dataclass
class Scene:
    """A registry with one job that waits. `postgres` and `database` are where its catalog is, if not in the folder."""

    kind: str
    shards: int
    data: Path
    registry: LocalRegistry
    job: str
    postgres: PostgresServer | None
    database: str
    finished: dict[str, int] = field(default_factory=dict)
    """The steps that were done when something happened, and at which turn."""

    def happened(self, is_seen: bool) -> None:
        """Something has: notes what had been done, and that the job's result is there whole or not at all."""
        self.finished = {row.step: row.turn for row in self._steps() if row.result}
        if not is_seen and self.kind == "merge":
            with pytest.raises(NotFound):
                self.registry.base("acme/merged")
        if not is_seen and self.kind in ("combine", "export"):
            with pytest.raises(NotFound):
                self.registry.versions(MADE)
        if not is_seen and self.kind == "fingerprint":
            assert self.registry.base("org/tiny").roots is None
        assert verify(self.registry.catalog, self.registry.blobs) == ()

    def ended_once(self) -> tuple[JobInfo, dict[str, int]]:
        """One end and one effect, which is that of an undisturbed job; steps that were done were not done again."""
        job = self.registry.job(self.job)
        assert (job.state, job.fault) == ("done", None)
        assert told(job.result) == told(undisturbed(self.kind, self.shards))
        turns = {row.step: row.turn for row in self._steps()}
        assert self.finished.items() <= turns.items()
        with self.registry.catalog.read() as tx:
            events = tx.exec(select(EventRow.kind)).all()
        assert events.count("base.stored") == (2 if self.kind == "merge" else 1)  # one that it was made from
        if self.kind in ("combine", "export"):
            (version,) = self.registry.versions(MADE).items
            assert job.result is not None
            assert str(version.digest) == job.result["digest"]
        assert verify(self.registry.catalog, self.registry.blobs) == ()
        return job, turns

    def nothing_under_way(self) -> bool:
        """Whether the engine has ended all it was told of."""
        if self.postgres:
            asked = f"SELECT count(*) FROM dbos.workflow_status WHERE {_UNDER_WAY}"
            return self.postgres.execute(asked, self.database) == [(0,)]
        with closing(sqlite3.connect(self.data / FILE, timeout=30)) as file:
            asked = f"SELECT count(*) FROM workflow_status WHERE {_UNDER_WAY}"
            return bool(file.execute(asked).fetchone() == (0,))

    def freeze(self, sleeper: Runner) -> None:
        """Stops a runner and its steps where they hold no lock of the database: whoever does keeps everybody waiting."""

        def frozen() -> bool:
            sleeper.freeze()
            if self._is_free():
                return True
            sleeper.thaw()
            return False

        wait_until(frozen, "the runner to hold no lock")

    def is_heard_of(self, someone: Runner) -> bool:
        return any(f"-{someone.process.pid}-" in each.id for each in self.registry.runners())

    @contextmanager
    def taken_over(self) -> Iterator[Runner]:
        """Another runner, that soon takes those that are silent for dead, until the job is over and all is forgotten but it."""
        with runner(self.data, lease=0.5) as other:
            yield other
            wait_until(lambda: not self.registry.job(self.job).is_open, "the end of the job")
            wait_until(self.nothing_under_way, "the engine to have ended everything")
            wait_until(lambda: self.is_heard_of(other), "the other runner to begin")
            wait_until(lambda: len(self.registry.runners()) == 1, "the dead to be forgotten")
            assert other.stop() == 0
        assert self.registry.runners() == ()

    def _steps(self) -> list[JobStepRow]:
        with self.registry.catalog.read() as tx:
            return list(tx.exec(select(JobStepRow)))

    def _is_free(self) -> bool:
        if self.postgres:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            asked = f"SELECT count(*) FROM pg_stat_activity WHERE {others} AND state LIKE '%transaction%'"
            return self.postgres.execute(asked, self.database) == [(0,)]
        return all(map(_can_be_written, (self.data / "catalog.sqlite", self.data / FILE)))


def _can_be_written(path: Path) -> bool:
    if not path.exists():
        return True
    with closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)) as file:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        file.execute("ROLLBACK")
    return True


def told(result: Mapping[str, Any] | None) -> object:
    """Of what a job came to, what must be the same each time: names and digests, and not who came first."""
    assert result is not None
    return {name: value for name, value in result.items() if name != "is_new"}
