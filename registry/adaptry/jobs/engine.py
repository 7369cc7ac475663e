"""The durable workflow engine of the runners: DBOS, which records each job's progress and assigns the next
steps.

A job is a workflow that computes nothing (`workflows`): it enqueues its steps, each a workflow in the queue
for its requirements, and ends the job. DBOS records only the progress. The catalog decides the result of a
step, and whether a step may still change anything, so work that is assigned twice takes effect once. DBOS's
tables are in the same PostgreSQL database as the catalog, or in a file in the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from adaptry.core.errors import MissingDependency, Unavailable
from adaptry.jobs.queue_wakeup import QueueWakeup
from adaptry.jobs.queues import job_queue, step_queue
from adaptry.storage.catalog.jobs import UnfinishedJob
from adaptry.storage.catalog.postgres import LIBPQ

try:
    from dbos import DBOS, Serializer

    from adaptry.jobs.workflows import VERSION, RunnerCallbacks, Workflows
except ModuleNotFoundError as error:
    raise MissingDependency(f"running jobs needs {error.name}: pip install 'adaptry[jobs]'") from error

FILE = "jobs.sqlite"
# Additional jobs of one queue that a runner oversees, beyond two per concurrent step, so that a slot never
# waits for its next step.
_SPARE_CONNECTIONS = 6
_FAILED_STATES = ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_FINISHED = ["SUCCESS", *_FAILED_STATES]
_BATCH = 500


class _JsonSerializer(Serializer):
    """Serializes as JSON, so that reading the database never runs code (pickle would)."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            data = {"error": f"{type(data).__name__}: {data}"}
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "adaptry_json"


class WorkflowEngine:
    """One per process. `url` is its database; `runner` the executor id by which DBOS assigns it work."""

    def __init__(
        self,
        url: str,
        runner: str,
        work: RunnerCallbacks,
        queues: Iterable[str],
        concurrency: int,
        poll: float,
    ) -> None:
        self._queues = tuple(queues)
        self._concurrency = concurrency
        self._poll = poll
        self._runner = runner
        self._idle_before: set[str] = set()
        self._engine = DBOS(
            config={
                "name": "adaptry",
                "system_database_url": url,
                "db_engine_kwargs": {} if url.startswith("sqlite:") else {"connect_args": dict(LIBPQ)},
                "executor_id": runner,
                "application_version": VERSION,
                "log_level": "CRITICAL",
                "serializer": _JsonSerializer(),
                "use_listen_notify": False,
                "notification_listener_polling_interval_sec": poll,
            }
        )
        self._wakeup = QueueWakeup()
        self._workflows = Workflows(work, self._wakeup.wake)
        DBOS.listen_queues([*map(job_queue, self._queues), *self._queues])

    def launch(self) -> None:
        """Starts the engine: from now on it assigns work to this process. Raises `Unavailable`."""
        many = 2 * self._concurrency + _SPARE_CONNECTIONS
        with _database_errors():
            DBOS.launch()
            for event in getattr(self._engine, "background_thread_stop_events", ()):
                self._wakeup.extend(event)
            for queue in self._queues:
                for name, count in ((job_queue(queue), many), (queue, self._concurrency)):
                    DBOS.register_queue(name, worker_concurrency=count, polling_interval_sec=self._poll)

    def enqueue(self, job: UnfinishedJob) -> None:
        """Starts a job's workflow. Idempotent."""
        with _database_errors():
            DBOS.enqueue_workflow_with_options(
                {
                    "queue_name": job_queue(step_queue(job.needs)),
                    "workflow_name": "job",
                    "workflow_id": _workflow_id(job),
                    "app_version": VERSION,
                    "priority": job.rank,
                },
                job.id,
                job.attempts,
            )
        self._wakeup.wake()

    def failed_jobs(self, jobs: Iterable[UnfinishedJob]) -> tuple[UnfinishedJob, ...]:
        """Jobs whose workflows the engine has given up on; they would otherwise never end."""
        with _database_errors():
            given_up = DBOS.list_workflows(
                name="job", status=_FAILED_STATES, load_input=False, load_output=False
            )
        ids = {each.workflow_id for each in given_up}
        return tuple(job for job in jobs if _workflow_id(job) in ids)

    def requeue_orphans(self, living: Iterable[str]) -> int:
        """Requeues the work of runners that are not among the `living`; returns how many workflows.

        Also requeues work that is assigned to this runner but not running: its thread may have died with a
        connection to the database.
        """
        others = set(living) - {self._runner}
        with _database_errors():
            pending = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
            mine = {each.workflow_id for each in pending if each.executor_id == self._runner}
            idle = mine - self._workflows.active_ids
            stuck, self._idle_before = (
                idle & self._idle_before,
                idle,
            )  # a job assigned a moment ago is left out
            lost = [
                each
                for each in pending
                if each.workflow_id in stuck or each.executor_id not in {*others, self._runner}
            ]
            for each in lost:
                DBOS.resume_workflow(each.workflow_id, queue_name=each.queue_name)
        return len(lost)

    def purge(self, before: datetime, unknown: Callable[[set[str]], set[str]]) -> None:
        """Deletes the records of workflows that ended before `before` and whose jobs `unknown` returns."""
        kept = 0
        while True:
            with _database_errors():
                page = DBOS.list_workflows(
                    status=_FINISHED,
                    completed_before=before.isoformat(),
                    limit=_BATCH,
                    offset=kept,
                    load_input=False,
                    load_output=False,
                )
            gone = unknown({_job_of(each.workflow_id) for each in page})
            some = [each.workflow_id for each in page if _job_of(each.workflow_id) in gone]
            kept += len(page) - len(some)
            if some:
                with _database_errors():
                    DBOS.delete_workflows(some)
            if len(page) < _BATCH:
                return


def _workflow_id(job: UnfinishedJob) -> str:
    """The engine's id for this attempt at a job."""
    return f"{job.id}.{job.attempts}"


def _job_of(workflow: str) -> str:
    """The job that a workflow id belongs to."""
    return workflow.partition(".")[0]


@contextmanager
def _database_errors() -> Iterator[None]:
    """Translates errors of the engine's database: raises `Unavailable` if it cannot be reached."""
    try:
        yield
    except DBAPIError as error:
        why = f"cannot use the jobs' database: {error.orig}"
        if "locked" in str(error.orig):
            why += (
                "; another process has locked it for too long: `adaptry runners` lists the runners; stop one"
            )
            why += " that hangs, and try again"
        raise Unavailable(why) from error


def database_url(folder: Path, catalog: str | None) -> str:
    """The URL of the engine's database, for a registry in `folder`."""
    if catalog is None:
        return f"sqlite:///{folder / FILE}"
    return catalog.replace("postgresql+psycopg://", "postgresql://").replace("postgres://", "postgresql://")
