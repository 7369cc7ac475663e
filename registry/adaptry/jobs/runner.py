"""`adaptry work`: a process that runs jobs, beside as many others as there are machines.

It says that it lives, hands waiting jobs to the engine, has steps done by children as its room allows, stops those that are
not wanted any more, and gives out again what runners that died were doing.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from adaptry.core.errors import AdaptryError, Invalid, Unavailable
from adaptry.core.failpoints import reach
from adaptry.jobs.capacity import Room
from adaptry.jobs.engine import Engine, database_of
from adaptry.jobs.ipc import Place
from adaptry.jobs.liveness import Watch
from adaptry.jobs.queues import queues_for
from adaptry.jobs.scratch import scratch
from adaptry.jobs.step_runner import Bench, ended, unfinished
from adaptry.jobs.workflows import Work
from adaptry.registry.jobs_values.records import Fault, JobInfo, RunnerInfo
from adaptry.storage.catalog import jobs, runners, schedules
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import catalog_of, open_local

KEEP = timedelta(days=30)
_TIDIED_EVERY = 600.0
_AT_ONCE = 100  # jobs that are handed to the engine in one round
_FORGOTTEN_AT_ONCE = 200
_LEAST = 64 << 20  # bytes: less than any process of a step takes


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """`devices` are what it can compute on beside the processor. `lease` is how many seconds others wait for a sign of life
    before they take its work over, `poll` how often it looks for work. With `once` it ends when no job is open. Jobs that ended
    longer than `keep` ago are forgotten, by whichever runner comes to it.

    `memory` (bytes) is what its steps may take together; 0: all that the machine has. Raises `Invalid` for less than any step takes.
    """

    place: Place
    devices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    concurrency: int = 1
    memory: int = 0
    lease: float = 30.0
    poll: float = 1.0
    once: bool = False
    keep: timedelta = KEEP
    remotes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if 0 < self.memory < _LEAST:
            raise Invalid(
                f"a runner with {self.memory:,} bytes of memory could do nothing: a step takes at least "
                f"{_LEAST >> 20} MiB (leave --memory out for all there is)"
            )


def run(
    settings: RunnerSettings,
    stop: threading.Event,
    announce: Callable[[RunnerInfo], None] = lambda runner: None,
) -> None:
    """Runs jobs until `stop` is set. The process should end then: threads of the engine wait for steps that were given up.

    Raises `Unavailable`, `Missing`, and what opening a registry raises, before any job was taken.
    """
    folder = Path(settings.place.folder)
    registry = open_local(
        folder,
        catalog=settings.place.catalog,
        blobs=settings.place.blobs,
        blob_cache=settings.place.blob_cache,
    )
    catalog, me = registry.catalog, _introduced(settings)
    with scratch() as room_on_disk:
        room = Room(settings.concurrency, me.memory)
        bench = Bench(me.id, catalog, settings.place, room, settings.devices, settings.remotes, room_on_disk)
        _greet(catalog, me)
        reach("runner.after_hello")
        place = database_of(folder, settings.place.catalog or catalog_of(folder))
        queues = queues_for(settings.devices, settings.tags, me.memory)
        engine = Engine(place, me.id, _work(bench), queues, settings.concurrency, settings.poll)
        engine.launch()
        announce(me)
        try:
            _Rounds(settings, me, bench, engine).until(stop)
        finally:
            bench.end_all()
            with catalog.write() as tx:
                runners.forget(tx, [me.id])


def _introduced(settings: RunnerSettings) -> RunnerInfo:
    return RunnerInfo(
        id=f"runner-{secrets.token_hex(6)}",
        host=socket.gethostname(),
        devices=settings.devices,
        tags=settings.tags,
        concurrency=settings.concurrency,
        memory=settings.memory or _machine_memory(),
        seen_at=datetime.now(UTC),
    )


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _greet(catalog: Catalog, me: RunnerInfo) -> None:
    with catalog.write() as tx:
        runners.beat(tx, me.model_copy(update={"seen_at": datetime.now(UTC)}))


def _work(bench: Bench) -> Work:
    def end(id: str, result: dict[str, Any] | None, fault: dict[str, Any] | None) -> None:
        ended(bench.catalog, id, result, Fault.model_validate(fault) if fault else None)

    def find(id: str) -> JobInfo | None:
        with bench.catalog.read() as tx:
            return jobs.find(tx, id)

    return Work(bench.step, end, find)


class _Rounds:
    """What a runner looks after again and again, in one thread; steps run in others."""

    def __init__(self, settings: RunnerSettings, me: RunnerInfo, bench: Bench, engine: Engine) -> None:
        self._settings = settings
        self._me = me
        self._bench = bench
        self._engine = engine
        self._watch = Watch(settings.lease)
        self._handed: set[tuple[str, int]] = set()
        self._beaten = 0.0
        self._tidied: float | None = None

    def until(self, stop: threading.Event) -> None:
        while not stop.wait(self._settings.poll):
            try:
                if self._settings.once and not unfinished(self._bench.catalog):
                    return
                self._round()
            except Unavailable:
                continue  # a database that is busy or gone for a while; what is under way goes on

    def _round(self) -> None:
        self._feed()
        self._bench.end_the_unwanted()
        self._bench.end_the_greedy()
        if time.monotonic() - self._beaten < self._settings.lease / 4:
            return
        self._beaten = time.monotonic()
        _greet(self._bench.catalog, self._me)
        with self._bench.catalog.write() as tx:
            schedules.submit_due(tx, datetime.now(UTC))
        self._take_over()
        if self._tidied is None or time.monotonic() - self._tidied >= _TIDIED_EVERY:
            self._tidied = time.monotonic()
            self._tidy()

    def _tidy(self) -> None:
        """Jobs that ended long ago go: rows first, so that what the engine remembers of jobs without rows is found again."""
        catalog, before = self._bench.catalog, datetime.now(UTC) - self._settings.keep
        while True:
            with catalog.write() as tx:
                some = set(jobs.due(tx, before, _FORGOTTEN_AT_ONCE))
                jobs.forget(tx, some)
            if len(some) < _FORGOTTEN_AT_ONCE:
                break

        def unknown(ids: set[str]) -> set[str]:
            with catalog.read() as tx:
                return jobs.unknown(tx, ids)

        self._engine.forget(before, unknown)

    def _feed(self) -> None:
        """Jobs are asked for in the catalog alone; whoever sees one first hands it to the engine, and others do no harm.

        Not all of very many in one round, which would keep this runner from saying that it lives.
        """
        there = {(job.id, job.tries): job for job in unfinished(self._bench.catalog)}
        self._handed &= there.keys()
        for name in islice((name for name in there if name not in self._handed), _AT_ONCE):
            self._engine.hand(there[name])
            self._handed.add(name)
        reach("runner.after_feed")

    def _take_over(self) -> None:
        with self._bench.catalog.read() as tx:
            beats = runners.beats(tx)
        dead = self._watch.dead(beats, time.monotonic())
        if dead:
            with self._bench.catalog.write() as tx:
                runners.forget(tx, dead)
        self._engine.take_over(beats.keys() - dead)
        for job in self._engine.broken(unfinished(self._bench.catalog)):
            said = "the engine gave this job up; its runners' own output may say why"
            ended(self._bench.catalog, job.id, None, Fault(code=AdaptryError.code, message=said))
