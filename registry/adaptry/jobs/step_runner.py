"""One step of a job, on this runner: begun at its next turn, done by a child, and what it came to kept.

Whatever happens in between, the step can be done again by anyone, and the second to finish changes nothing: the turn is
looked at in the transaction of every change. A child that dies is started again, a few times.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from adaptry.core.errors import AdaptryError, Conflict, Unavailable
from adaptry.core.failpoints import reach
from adaptry.jobs.capacity import CapacityLimiter
from adaptry.jobs.ipc import RegistryLocation, StepRequest, StepResult
from adaptry.jobs.subprocess import OutputHandler, StepProcess
from adaptry.registry.job_types.records import JobFault, JobNeeds
from adaptry.storage.catalog import job_steps, jobs
from adaptry.storage.catalog.database import Catalog

_LOG = logging.getLogger("adaptry.jobs")
_DEATHS = 3  # of a step's process, after which it is no accident
_TRIES = 9  # of a step that does not reach a store, which may be starting again: over half a minute
_EVERY = 1.0  # seconds between two notes of how far a step is
GONE: Mapping[str, Any] = {"gone": True}
"""What a step comes to whose job is over."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a try failed, how many there should be of that, and the seconds before the second."""

    fault: JobFault
    tries: int = 1
    pause: float = 0.2

    @classmethod
    def unavailable(cls, message: str, *, tries: int) -> Self:
        return cls(JobFault(code=Unavailable.code, message=message), tries)


@dataclass(slots=True)
class StepRunner:
    """What the steps on this runner share."""

    runner: str
    catalog: Catalog
    location: RegistryLocation
    capacity: CapacityLimiter
    devices: tuple[str, ...]
    remotes: Mapping[str, str]
    scratch: Path
    children: set[StepProcess] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run_step(self, id: str, step: str, memory: int) -> dict[str, Any]:
        """Does a step, or finds that it was done: its result; `{"fault": …}` where it failed, `GONE` where it is not to be done."""
        with self.capacity.reserve(memory):
            for tried in range(1, _TRIES + 1):
                came_to = self._try_step(id, step)
                if not isinstance(came_to, _Failure):
                    return came_to
                if tried >= came_to.tries:
                    return {"fault": came_to.fault.model_dump()}
                time.sleep(came_to.pause * tried)  # what failed for want of something else may find it now
        raise AssertionError("what the last try came to is returned")

    def kill_cancelled(self) -> None:
        """Stops the processes of steps whose job is over, or which somebody else has begun since."""
        with self.lock:
            at_work = tuple(self.children)
        for child in at_work:
            if not self._is_ours(child.request):
                child.cancel()

    def kill_largest_if_over_memory(self) -> None:
        """Stops the largest process where all together have more memory than there is room for, before the system stops another."""
        with self.lock:
            sizes = {child: child.resident_memory for child in self.children}
        if sum(sizes.values()) > self.capacity.memory:
            greedy = max(sizes, key=lambda child: sizes[child])
            greedy.is_over_memory = True
            greedy.process.kill()

    def kill_all(self) -> None:
        """Nothing is computed here any more, and no step that was under way comes to an end."""
        self.stopping.set()
        with self.lock:
            for child in self.children:
                child.cancel()

    def _try_step(self, id: str, step: str) -> dict[str, Any] | _Failure:
        """A step begun at its next turn and done by a child: what it came to, or why not."""
        reach("runner.before_begin")
        with self.catalog.write() as tx:
            begun = job_steps.begin_attempt(tx, id, step, self.runner, _now())
            found = jobs.find(tx, id)
            before = job_steps.results(tx, id)
            by = jobs.submitter(tx, id) if found else None
        if begun is None or found is None or by is None:
            return dict(GONE)
        if begun.result is not None:
            return begun.result
        reach("runner.after_begin")
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=f"{id}-") as folder:
            request = StepRequest(
                place=self.location,
                job=id,
                step=step,
                turn=begun.attempt,
                kind=found.kind,
                task=found.task,
                by=by.name,
                role=by.role,
                namespaces=by.namespaces,
                before=before,
                device=self._device(found.needs),
                scratch=folder,
                remotes=dict(self.remotes),
            )
            came_to = self._run_process(request)
        if isinstance(came_to, StepResult):
            return self._record_result(request, came_to)
        return came_to or dict(GONE)

    def _run_process(self, request: StepRequest) -> StepResult | _Failure | None:
        """What the child came to, or why it failed; None where it was not wanted any more."""
        told = _ProgressLog(self.catalog, request)
        child = StepProcess.start(request)
        with self.lock:
            self.children.add(child)
            if self.stopping.is_set():
                child.cancel()
        try:
            came_to = child.wait(OutputHandler(told.log, told.log_internally, told.report_progress))
        finally:
            with self.lock:
                self.children.remove(child)
            told.flush()
        if self.stopping.is_set():
            threading.Event().wait()  # the runner is about to be gone; nothing of this step is to be recorded
        if isinstance(came_to, StepResult):
            return came_to
        if child.is_cancelled:
            return None
        if child.is_over_memory:
            took = f"the step {request.step} took more than the {self.capacity.memory / 1e9:.1f} GB that this runner has for its steps"
            return _Failure.unavailable(f"{took}: run it where there is more, with --memory", tries=1)
        if came_to is None:
            return _Failure.unavailable(f"the step {request.step} failed: {child.exit_reason}", tries=_DEATHS)
        if came_to.code == Conflict.code and not self._is_ours(request):
            return None
        return _Failure(came_to, _TRIES, 1.0) if came_to.code == Unavailable.code else _Failure(came_to)

    def _record_result(self, request: StepRequest, outcome: StepResult) -> dict[str, Any]:
        result = {**outcome.result}
        if outcome.pieces:
            result["pieces"] = [piece.model_dump() for piece in outcome.pieces]
        sizes = {piece.name: piece.size for piece in outcome.pieces}
        try:
            with self.catalog.write() as tx:
                job_steps.finish_step(tx, request.job, request.step, request.turn, result, sizes)
        except Conflict:
            return dict(GONE)
        reach("runner.concluded")
        return result

    def _is_ours(self, request: StepRequest) -> bool:
        try:
            with self.catalog.read() as tx:
                job_steps.require_current(tx, request.job, request.step, request.turn)
        except Conflict:
            return False
        return True

    def _device(self, needs: JobNeeds) -> str:
        return needs.device if needs.device in self.devices else "cpu"


class _ProgressLog:
    """What a child says, on its way to the catalog: lines together, and how far it is not too often. An aside is logged here."""

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
        """Everything that was said is in the catalog."""
        with self._lock:
            lines, self._lines = self._lines, []
        stage, self._stage = self._stage, None
        request = self._request
        if not lines and not stage:
            return
        with suppress(AdaptryError), self._catalog.write_nondurable() as tx:  # a story is worth no failure
            if lines:
                jobs.append_log(tx, request.job, request.step, lines, _now())
            if stage:
                job_steps.report(tx, request.job, request.step, request.turn, *stage)

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed_at >= _EVERY:
            self._flushed_at = time.monotonic()
            self.flush()


def finish_job(catalog: Catalog, id: str, result: Mapping[str, Any] | None, fault: JobFault | None) -> None:
    """The job has come to its end, unless it had before."""
    reach("runner.before_finish")
    with catalog.write() as tx:
        jobs.finish(tx, id, "failed" if fault else "done", _now(), result=result, fault=fault)
    reach("runner.after_finish")


def unfinished_jobs(catalog: Catalog) -> tuple[jobs.UnfinishedJob, ...]:
    with catalog.read() as tx:
        return jobs.unfinished(tx)


def _now() -> datetime:
    return datetime.now(UTC)
