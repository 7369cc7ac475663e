"""`adaptry work`: a runner, one process that runs jobs and sends messages to webhooks; any number of runners
share a registry.

It sends heartbeats, enqueues waiting jobs with the workflow engine, runs steps in processes as its capacity
allows, kills those that are cancelled, and requeues the steps of runners that died.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from adaptry.core.errors import AdaptryError, Invalid, Unavailable
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.outgoing_requests.connector import GuardedConnector
from adaptry.jobs.capacity import CapacityLimiter
from adaptry.jobs.devices import require_devices
from adaptry.jobs.engine import WorkflowEngine, database_url
from adaptry.jobs.ipc import RegistryLocation
from adaptry.jobs.liveness import LivenessMonitor
from adaptry.jobs.queues import next_of_each_namespace, runner_queues
from adaptry.jobs.scratch import scratch_folder
from adaptry.jobs.step_launcher import StepLauncher
from adaptry.jobs.step_runner import StepRunner, finish_job, has_unfinished_jobs
from adaptry.jobs.workflows import RunnerCallbacks
from adaptry.registry.job_types.records import JobFailure, JobInfo, RunnerInfo
from adaptry.storage.catalog import jobs, runners, schedules
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import catalog_of, open_local
from adaptry.storage.webhooks.sender import sending_webhooks

JOB_RETENTION = timedelta(days=30)
_PURGE_INTERVAL = 600.0
_BATCH = 100  # jobs enqueued per round
# How many jobs of one namespace the engine holds for each step that runs at the same time.
_QUEUED_PER_STEP = 8
_PURGE_BATCH = 200
_MIN_STEP_MEMORY = 64 << 20  # bytes; every step process takes more
POLL_SQLITE = 0.2
POLL_POSTGRESQL = 1.0
"""Seconds between two checks for work, by the catalog's database. Each check is a few queries. On SQLite,
those of a runner take 3 % of a processor. PostgreSQL serves the runners of many machines, so they check less
often.
"""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """`devices` are the accelerators that it can use in addition to the CPU. After `lease` seconds without a
    heartbeat, other runners take over its work; every `poll` seconds it looks for work (None: `POLL_SQLITE`
    or `POLL_POSTGRESQL`). With `once` it ends when no job is open. Jobs that ended longer than `keep` ago are
    purged by any runner.

    `memory` is the limit in bytes for all its steps together; 0 means all of the machine's memory. Raises
    `Invalid` if it is too little for any step. `connector` sends messages to webhooks; None sends none.
    """

    location: RegistryLocation
    devices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    concurrency: int = 1
    memory: int = 0
    lease: float = 30.0
    poll: float | None = None
    once: bool = False
    keep: timedelta = JOB_RETENTION
    remotes: Mapping[str, str] = field(default_factory=dict)
    connector: GuardedConnector | None = None

    def __post_init__(self) -> None:
        if 0 < self.memory < _MIN_STEP_MEMORY:
            raise Invalid(
                f"a runner with {self.memory:,} bytes of memory could run no step: each needs at least"
                f" {_MIN_STEP_MEMORY >> 20} MiB (leave out --memory to use all of the machine's)"
            )


def run_jobs(
    settings: RunnerSettings,
    stop: threading.Event,
    announce: Callable[[RunnerInfo], None] = lambda runner: None,
) -> None:
    """Runs jobs until `stop` is set. The process should exit then, and after `ProtocolMismatch` (a newer
    Adaptry upgraded the database): engine threads wait for abandoned steps.

    Raises `Invalid` (a device that torch cannot use), `Unavailable`, `MissingDependency`, and the errors of
    opening a registry, before it takes any job.
    """
    require_devices(settings.devices)
    folder = Path(settings.location.folder)
    registry = open_local(
        folder,
        catalog=settings.location.catalog,
        blobs=settings.location.blobs,
        blob_cache=settings.location.blob_cache,
    )
    catalog, me = registry.catalog, _describe_runner(settings)
    with scratch_folder() as scratch, closing(StepLauncher()) as launcher:
        capacity = CapacityLimiter(settings.concurrency, me.memory)
        steps = StepRunner(
            me.id, catalog, settings.location, capacity, settings.devices, settings.remotes, scratch, launcher
        )
        _send_heartbeat(catalog, me)
        reach("runner.after_registration")
        if has_unfinished_jobs(catalog):
            launcher.warm_up()
        url = database_url(folder, settings.location.catalog or catalog_of(folder))
        queues = runner_queues(settings.devices, settings.tags, me.memory)
        poll = settings.poll or (POLL_SQLITE if url.startswith("sqlite:") else POLL_POSTGRESQL)
        engine = WorkflowEngine(url, me.id, _callbacks(steps), queues, settings.concurrency, poll)
        engine.launch()
        announce(me)
        sending = sending_webhooks(catalog, settings.connector) if settings.connector else nullcontext()
        try:
            with sending:
                _RunnerLoop(settings, me, steps, engine).run_until(stop, poll)
        finally:
            steps.kill_all()
            with catalog.write() as tx:
                runners.delete(tx, [me.id])


def _describe_runner(settings: RunnerSettings) -> RunnerInfo:
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


def _send_heartbeat(catalog: Catalog, me: RunnerInfo) -> None:
    with catalog.write() as tx:
        runners.beat(tx, me.model_copy(update={"seen_at": datetime.now(UTC)}))


def _callbacks(steps: StepRunner) -> RunnerCallbacks:
    def end(id: str, result: dict[str, Any] | None, fault: dict[str, Any] | None) -> None:
        finish_job(steps.catalog, id, result, JobFailure.model_validate(fault) if fault else None)

    def find(id: str) -> JobInfo | None:
        with steps.catalog.read() as tx:
            return jobs.find(tx, id)

    return RunnerCallbacks(steps.run_step, end, find)


class _RunnerLoop:
    """The runner's periodic work, in one thread; steps run in others."""

    def __init__(
        self, settings: RunnerSettings, me: RunnerInfo, steps: StepRunner, engine: WorkflowEngine
    ) -> None:
        self._settings = settings
        self._me = me
        self._steps = steps
        self._engine = engine
        self._liveness = LivenessMonitor(settings.lease)
        self._enqueued: set[tuple[str, int]] = set()
        self._last_heartbeat = 0.0
        self._last_purge: float | None = None

    def run_until(self, stop: threading.Event, poll: float) -> None:
        """Does the periodic work every `poll` seconds until `stop` is set. Raises `ProtocolMismatch` if a
        newer Adaptry upgraded the database.
        """
        while not stop.wait(poll):
            if self._steps.newer_database is not None:
                raise self._steps.newer_database
            try:
                if self._settings.once and not has_unfinished_jobs(self._steps.catalog):
                    return
                self._run_round()
            except Unavailable:
                continue  # the database is busy or briefly gone; running steps continue

    def _run_round(self) -> None:
        self._enqueue_jobs()
        self._steps.kill_cancelled()
        self._steps.kill_overdue()
        self._steps.kill_largest_if_over_memory()
        if time.monotonic() - self._last_heartbeat < self._settings.lease / 4:
            return
        self._last_heartbeat = time.monotonic()
        _send_heartbeat(self._steps.catalog, self._me)
        with self._steps.catalog.write() as tx:
            schedules.submit_due(tx, datetime.now(UTC))
        self._requeue_orphans()
        if self._last_purge is None or time.monotonic() - self._last_purge >= _PURGE_INTERVAL:
            self._last_purge = time.monotonic()
            self._purge()

    def _purge(self) -> None:
        """Purges jobs that ended long ago: deletes their rows first, so that a later purge finds leftovers in
        the engine.
        """
        catalog, before = self._steps.catalog, datetime.now(UTC) - self._settings.keep
        while True:
            with catalog.write() as tx:
                some = set(jobs.due_for_removal(tx, before, _PURGE_BATCH))
                jobs.delete(tx, some)
            if len(some) < _PURGE_BATCH:
                break

        def unknown(ids: set[str]) -> set[str]:
            with catalog.read() as tx:
                return jobs.unknown(tx, ids)

        self._engine.purge(before, unknown)

    def _enqueue_jobs(self) -> None:
        """Enqueues new jobs with the engine. Jobs are submitted to the catalog only; enqueuing is idempotent.

        The engine runs jobs of the same priority in the order in which it receives them. So it receives only
        the next few of each namespace; otherwise a namespace with hundreds of jobs would delay the others for
        hours. At most `_BATCH` per round, so that many jobs do not delay the heartbeat.
        """
        with self._steps.catalog.read() as tx:
            slots = sum(each.concurrency for each in runners.every(tx))
            maximum = _QUEUED_PER_STEP * max(slots, self._settings.concurrency)
            found = next_of_each_namespace(jobs.unfinished(tx, maximum), maximum)
        open_jobs = {(job.id, job.attempts): job for job in found}
        self._enqueued &= open_jobs.keys()
        for name in islice((name for name in open_jobs if name not in self._enqueued), _BATCH):
            self._engine.enqueue(open_jobs[name])
            self._enqueued.add(name)
        reach("runner.after_queueing")

    def _requeue_orphans(self) -> None:
        with self._steps.catalog.read() as tx:
            beats = runners.beats(tx)
        dead = self._liveness.find_dead(beats, time.monotonic())
        if dead:
            with self._steps.catalog.write() as tx:
                runners.delete(tx, dead)
        self._engine.requeue_orphans(beats.keys() - dead)
        with self._steps.catalog.read() as tx:
            open_jobs = jobs.unfinished(tx)
        for job in self._engine.failed_jobs(open_jobs):
            message = (
                "the job engine gave up on this job after errors or repeated crashes; see the output of"
                " the runners"
            )
            finish_job(self._steps.catalog, job.id, None, JobFailure(code=AdaptryError.code, message=message))
