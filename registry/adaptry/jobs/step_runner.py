"""Runs one step of a job on this runner: begins the next attempt, runs it in a process, records the result.

After a crash any runner can run the step again. Every change checks, in its transaction, that its attempt is
still the current one, so an attempt that was superseded changes nothing. A process that dies is started again
a few times.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from adaptry.core import tracing
from adaptry.core.errors import AdaptryError, Conflict, ProtocolMismatch, Unavailable
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.jobs.capacity import CapacityLimiter
from adaptry.jobs.ipc import RegistryLocation, StepRequest, StepResult
from adaptry.jobs.step_launcher import StepLauncher
from adaptry.jobs.step_process import OutputHandler, StepProcess
from adaptry.registry.job_types.records import JobFailure, JobNeeds
from adaptry.storage.catalog import job_steps, jobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rights import encode_rights

_LOG = logging.getLogger("adaptry.jobs")
_MAX_DEATHS = 3  # deaths of a step's process after which the step fails
# How often a step that cannot reach a store is tried: for over half a minute, so the store can restart.
_MAX_ATTEMPTS = 9
_UPDATE_INTERVAL = 1.0  # seconds between two progress updates in the catalog
JOB_ENDED: Mapping[str, Any] = {"gone": True}
"""The result of a step whose job has ended."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a step failed, how many tries that reason allows, and the pause in seconds before the second."""

    fault: JobFailure
    tries: int = 1
    pause: float = 0.2

    @classmethod
    def unavailable(cls, message: str, *, tries: int) -> Self:
        return cls(JobFailure(code=Unavailable.code, message=message), tries)


@dataclass(slots=True)
class StepRunner:
    """Runs steps on this runner, and holds their shared state."""

    runner: str
    catalog: Catalog
    location: RegistryLocation
    capacity: CapacityLimiter
    devices: tuple[str, ...]
    remotes: Mapping[str, str]
    scratch: Path
    launcher: StepLauncher
    children: set[StepProcess] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)
    newer_database: ProtocolMismatch | None = None
    """Set once a step could not open the catalog, which a newer Adaptry upgraded: the runner must end."""

    def run_step(self, id: str, step: str, memory: int) -> dict[str, Any]:
        """Runs a step unless it has a result already. Returns the result; `{"fault": …}` if the step failed,
        `JOB_ENDED` if its job has ended or another attempt has begun."""
        with self.capacity.reserve(memory):
            for tried in range(1, _MAX_ATTEMPTS + 1):
                outcome = self._try_step(id, step)
                if not isinstance(outcome, _Failure):
                    return outcome
                if tried >= outcome.tries:
                    return {"fault": outcome.fault.model_dump()}
                time.sleep(outcome.pause * tried)  # an unavailable store may be back by then
        raise AssertionError("unreachable: the last try returns")

    def kill_cancelled(self) -> None:
        """Kills the processes of steps whose job has ended, or has a newer attempt on another runner."""
        with self.lock:
            running = tuple(self.children)
        for child in running:
            if not self._is_ours(child.request):
                child.cancel()

    def kill_overdue(self) -> None:
        """Kills the processes of steps that have taken longer than their job allows."""
        with self.lock:
            running = tuple(self.children)
        for child in running:
            if time.monotonic() - child.started > child.request.timeout:
                child.is_overdue = True
                child.process.kill()

    def kill_largest_if_over_memory(self) -> None:
        """Kills the largest process if all exceed the memory limit, before the OOM killer picks another."""
        with self.lock:
            sizes = {child: child.resident_memory for child in self.children}
        if sum(sizes.values()) > self.capacity.memory:
            largest = max(sizes, key=lambda child: sizes[child])
            largest.is_over_memory = True
            largest.process.kill()

    def kill_all(self) -> None:
        """Kills every process; the results of running steps are not recorded."""
        self.stopping.set()
        with self.lock:
            for child in self.children:
                child.cancel()

    def _try_step(self, id: str, step: str) -> dict[str, Any] | _Failure:
        """Begins the next attempt and runs it in a process. Returns the result, or the reason why the attempt
        failed.
        """
        reach("runner.before_begin")
        with self.catalog.write() as tx:
            begun = job_steps.begin_attempt(tx, id, step, self.runner, _now())
            found = jobs.find(tx, id)
            before = job_steps.results(tx, id)
            by = jobs.submitter(tx, id) if found else None
        if begun is None or found is None or by is None:
            return dict(JOB_ENDED)
        if begun.result is not None:
            return begun.result
        reach("runner.after_begin")
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=f"{id}-") as folder:
            request = StepRequest(
                place=self.location,
                job=id,
                step=step,
                attempt=begun.attempt,
                kind=found.kind,
                task=found.task,
                by=by.name,
                rights=encode_rights(by),
                before=before,
                device=self._device(found.needs),
                timeout=found.needs.timeout,
                scratch=folder,
                remotes=dict(self.remotes),
            )
            outcome = self._run_traced(request)
        if isinstance(outcome, StepResult):
            return self._record_result(request, outcome)
        return outcome or dict(JOB_ENDED)

    def _run_traced(self, request: StepRequest) -> StepResult | _Failure | None:
        """Like `_run_process`, in a tracing span that contains the process's own spans."""
        attributes = {"adaptry.job.kind": request.kind, "adaptry.job.step": request.step.partition("-")[0]}
        with tracing.span("job step", attributes, seconds=tracing.STEP_SECONDS) as span:
            span.detail({"adaptry.job": request.job, "adaptry.job.attempt": request.attempt})
            outcome = self._run_process(request.model_copy(update={"trace": tracing.headers()}))
            if isinstance(outcome, _Failure):
                span.set({"error.type": outcome.fault.code})
            return outcome

    def _run_process(self, request: StepRequest) -> StepResult | _Failure | None:
        """Runs the process. Returns its result, or the reason why it failed; None if the step was
        cancelled.
        """
        log = _ProgressLog(self.catalog, request)
        child = StepProcess.start(request, self.launcher)
        with self.lock:
            self.children.add(child)
            self._divide_processors()
            if self.stopping.is_set():
                child.cancel()
        try:
            outcome = child.wait(OutputHandler(log.log, log.log_internally, log.report_progress))
        finally:
            with self.lock:
                self.children.remove(child)
                self._divide_processors()
            log.flush()
        if self.stopping.is_set():
            threading.Event().wait()  # the runner is exiting; block, so that nothing of this step is recorded
        if isinstance(outcome, StepResult):
            return outcome
        if child.is_cancelled:
            return None
        if child.is_overdue:
            return _Failure.unavailable(_overdue(request), tries=1)
        if child.is_over_memory:
            took = (
                f"the step {request.step} took more than the {self.capacity.memory / 1e9:.1f} GB that this"
                " runner has for its steps"
            )
            return _Failure.unavailable(
                f"{took}: run it on a runner with more memory (adaptry work --memory SIZE)", tries=1
            )
        if outcome is None:
            return _Failure.unavailable(
                f"the step {request.step} failed: {child.exit_reason}", tries=_MAX_DEATHS
            )
        if outcome.code == Conflict.code and not self._is_ours(request):
            return None
        if outcome.code == ProtocolMismatch.code and (newer := self._newer_database()):
            self.newer_database = newer
            threading.Event().wait()  # a runner of the new version takes over the step from this one
        return (
            _Failure(outcome, _MAX_ATTEMPTS, 1.0) if outcome.code == Unavailable.code else _Failure(outcome)
        )

    def _record_result(self, request: StepRequest, outcome: StepResult) -> dict[str, Any]:
        result = {**outcome.result}
        if outcome.pieces:
            result["pieces"] = [piece.model_dump() for piece in outcome.pieces]
        sizes = {piece.name: piece.size for piece in outcome.pieces}
        try:
            with self.catalog.write() as tx:
                job_steps.finish_step(tx, request.job, request.step, request.attempt, result, sizes)
        except Conflict:
            return dict(JOB_ENDED)
        reach("runner.concluded")
        return result

    def _divide_processors(self) -> None:
        """Divides the processors among the running steps. The caller holds the lock; call it when a step has
        begun or ended.
        """
        if self.children:
            count = max(1, (os.cpu_count() or 1) // len(self.children))
            for child in self.children:
                child.set_processors(count)

    def _is_ours(self, request: StepRequest) -> bool:
        try:
            with self.catalog.read() as tx:
                job_steps.require_current(tx, request.job, request.step, request.attempt)
        except Conflict:
            return False
        return True

    def _newer_database(self) -> ProtocolMismatch | None:
        """The error of opening the catalog; None if the mismatch is with another registry."""
        try:
            self.catalog.schema()
        except ProtocolMismatch as error:
            return ProtocolMismatch(
                f"{error.message}, and start this runner again: the database was upgraded while it was"
                " running. Runners of the new version take over its jobs"
            )
        return None

    def _device(self, needs: JobNeeds) -> str:
        return needs.device if needs.device in self.devices else "cpu"


class _ProgressLog:
    """Writes a step's log lines and progress to the catalog, in batches. Asides go to the runner's log."""

    def __init__(self, catalog: Catalog, request: StepRequest) -> None:
        self._catalog = catalog
        self._request = request
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._flushed_at = time.monotonic()
        self._stage: tuple[str, int, int] | None = None

    def log(self, text: str) -> None:
        with self._lock:
            self._lines.append(text)
        self._flush_if_due()

    def log_internally(self, text: str) -> None:
        _LOG.warning("%s, step %s: %s", self._request.job, self._request.step, text)

    def report_progress(self, text: str, done: int, total: int) -> None:
        self._stage = (text, done, total)
        self._flush_if_due()

    def flush(self) -> None:
        """Writes all pending lines and progress to the catalog."""
        with self._lock:
            lines, self._lines = self._lines, []
        stage, self._stage = self._stage, None
        request = self._request
        if not lines and not stage:
            return
        with (
            suppress(AdaptryError),
            self._catalog.write_nondurable() as tx,
        ):  # a lost log line must not fail the step
            if lines:
                jobs.append_log(tx, request.job, request.step, lines, _now())
            if stage:
                job_steps.report(tx, request.job, request.step, request.attempt, *stage)

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed_at >= _UPDATE_INTERVAL:
            self._flushed_at = time.monotonic()
            self.flush()


def finish_job(catalog: Catalog, id: str, result: Mapping[str, Any] | None, fault: JobFailure | None) -> None:
    """Records the job's end, unless it has ended already."""
    reach("runner.before_finish")
    with catalog.write() as tx:
        jobs.finish(tx, id, "failed" if fault else "done", _now(), result=result, error=fault)
    reach("runner.after_finish")


def has_unfinished_jobs(catalog: Catalog) -> bool:
    with catalog.read() as tx:
        return jobs.has_unfinished(tx)


def _overdue(request: StepRequest) -> str:
    limit = timedelta(seconds=request.timeout)
    return (
        f"the step {request.step} took longer than the job's limit of {limit}: see"
        " its log; if it needs more time, submit it again with a higher limit (adaptry jobs submit --timeout)"
    )


def _now() -> datetime:
    return datetime.now(UTC)
