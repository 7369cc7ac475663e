"""The DBOS workflows: a job, which enqueues its steps and ends; and a step, run by the runner that takes it.

Their decisions depend only on results of DBOS steps, so a workflow that is resumed elsewhere decides the
same. DBOS stores these results, so an upgraded runner also reads those of earlier ones: the keys of a
result, such as `fault`, do not change.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from dbos import DBOS, WorkflowHandle

from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.jobs.queues import step_queue
from adaptry.registry.job_types.records import JobInfo, JobNeeds
from adaptry.storage.catalog.jobs import rank_of

VERSION = "1"  # workflows of another version are left to runners of that version
_POLL_INTERVAL = 0.05  # seconds between two checks whether a step is done, for each job supervised here
_RETRY_DELAY = 1.0  # seconds between tries to reach an unreachable catalog
_STORED = {"needs", "priority", "submitted_at"}  # fields of a job that DBOS's tables hold
Json = dict[str, Any]  # the results of steps
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RunnerCallbacks:
    """The runner's functions that the workflows call: run a step, finish a job, find a job."""

    run_step: Callable[[str, str, int], Json]
    finish_job: Callable[[str, Json | None, Json | None], None]
    find_job: Callable[[str], JobInfo | None]


class Workflows:
    """The workflows, registered with DBOS for this process. `active_ids` are those running in it; `wake` is
    called when there may be work in a queue.
    """

    def __init__(self, work: RunnerCallbacks, wake: Callable[[], None]) -> None:
        self.active_ids: set[str] = set()
        self.wake = wake
        self._work = work
        self._register()

    @property
    def poll_interval(self) -> float:
        """Seconds between two polls of a step's result. It grows with the number of jobs here, since each
        poll is a query.
        """
        return _POLL_INTERVAL * max(1, len(self.active_ids))

    def is_open(self, id: str) -> Json | None:
        """The job if it is open, else None. Call it from the job's workflow."""
        return self._is_open(id)

    def _job(self, id: str, attempt: int) -> None:
        job = self._is_open(id)
        if job is None:
            return
        rank = rank_of(job["priority"], datetime.fromisoformat(job["submitted_at"]))
        run = _Run(id, attempt, JobNeeds.model_validate(job["needs"]), rank, self)
        (first,) = run.run_all([("start", job["needs"]["memory"])])
        if first is None:
            return
        pieces = first.pop("pieces", None)
        fault, result = first.get("fault"), first
        if pieces and not fault:
            done = run.run_all([(piece["name"], piece["memory"]) for piece in pieces])
            if any(each is None for each in done):
                return
            fault = next((each["fault"] for each in done if each and "fault" in each), None)
        if pieces and not fault:
            (last,) = run.run_all([("end", job["needs"]["memory"])])
            if last is None:
                return
            fault, result = last.get("fault"), last
        self._end(id, None if fault else result, fault)

    @contextmanager
    def _marked_active(self) -> Iterator[None]:
        """Marks the workflow as active in the block, to notice workflows that are assigned to us but not
        running.
        """
        here = str(DBOS.workflow_id)
        self.active_ids.add(here)
        try:
            yield
        finally:
            self.active_ids.discard(here)

    def _register(self) -> None:
        """Registers the workflows with DBOS, which accepts functions but not methods."""
        work = self._work

        @DBOS.step(name="is_open")
        def is_open(id: str) -> Json | None:
            found = _retry_unavailable(lambda: work.find_job(id))
            return found.model_dump(mode="json", include=_STORED) if found and found.is_open else None

        @DBOS.step(name="do")
        def do(id: str, step: str, memory: int) -> Json:
            return _run_caught(lambda: work.run_step(id, step, memory))

        @DBOS.step(name="end")
        def end(id: str, result: Json | None, fault: Json | None) -> None:
            _retry_unavailable(lambda: work.finish_job(id, result, fault))

        @DBOS.workflow(name="step")
        def step(id: str, step: str, memory: int) -> Json:
            with self._marked_active():
                try:
                    return do(id, step, memory)
                finally:
                    self.wake()  # a waiting step can take the slot of this one

        @DBOS.workflow(name="job")
        def job(id: str, attempt: int) -> None:
            with self._marked_active():
                self._job(id, attempt)

        self._is_open, self._end = is_open, end


@dataclass(slots=True)
class _Run:
    """Runs one job's steps, inside its workflow."""

    id: str
    attempt: int
    needs: JobNeeds
    rank: int
    workflows: Workflows

    def run_all(self, steps: list[tuple[str, int]]) -> list[Json | None]:
        """Runs the steps concurrently. Returns their results; None for steps that were cancelled because the
        job ended.

        After a failure, the job ends without waiting for other steps, which cancels them.
        """
        given = [(step, memory, self._enqueue_step(step, memory, 0)) for step, memory in steps]
        found: list[Json | None] = []
        for step, memory, handle in given:
            outcome = handle.get_result(polling_interval_sec=self.workflows.poll_interval)
            again = 0
            while outcome.get("gone"):
                # Another runner has also begun this step, and may be dead now; or the job has ended.
                if self.workflows.is_open(self.id) is None:
                    return [None]
                again += 1
                outcome = self._enqueue_step(step, memory, again).get_result(
                    polling_interval_sec=self.workflows.poll_interval
                )
            found.append(outcome)
            if "fault" in outcome:
                break
        return found

    def _enqueue_step(self, step: str, memory: int, again: int) -> WorkflowHandle[Any]:
        """Enqueues a step in the queue that matches its needs. (`Any`: JSON.)"""
        needs = self.needs.model_copy(update={"memory": memory})
        handle: WorkflowHandle[Any] = DBOS.enqueue_workflow_with_options(
            {
                "queue_name": step_queue(needs),
                "workflow_name": "step",
                "workflow_id": f"{self.id}.{self.attempt}.{step}.{again}",
                "app_version": VERSION,
                "priority": self.rank,
            },
            self.id,
            step,
            memory,
        )
        self.workflows.wake()
        return handle


def _retry_unavailable(action: Callable[[], Answer]) -> Answer:
    """Retries `action` while the catalog is unavailable: an error would end the workflow, but not its job."""
    while True:
        try:
            return action()
        except Unavailable:
            time.sleep(_RETRY_DELAY)


def _run_caught(step: Callable[[], Json]) -> Json:
    """Runs a step; an error becomes its result."""
    try:
        return _retry_unavailable(step)
    except AdaptryError as error:
        if error.public_message != error.message:
            traceback.print_exc()
        return {"fault": {"code": error.code, "message": error.public_message}}
    except Exception as error:  # noqa: BLE001  (any error ends the job and is recorded)
        traceback.print_exc()
        message = (
            f"{type(error).__name__}: {error} (a bug in Adaptry; the runner's own output has the details)"
        )
        return {"fault": {"code": AdaptryError.code, "message": message}}
