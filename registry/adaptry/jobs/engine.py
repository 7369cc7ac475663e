"""The durable engine under the runners: DBOS, which remembers how far each job has come and gives what is next to who asks.

A job is a workflow that computes nothing: it has its steps done, each a workflow in the queue of what it needs, and ends the
job. What DBOS remembers is only what has been reached; what a step came to, and whether it may change anything, is the
catalog's to say, so that work that is given out twice is done with one effect. Its tables lie beside the catalog: in the
same PostgreSQL database, or in a file in the same folder.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from adaptry.catalog.jobs import Unfinished
from adaptry.catalog.postgres import LIBPQ
from adaptry.errors import AdaptryError, Missing, Unavailable
from adaptry.jobs.queues import of_jobs, queue_of
from adaptry.jobs.records import JobInfo

try:
    from dbos import DBOS, Serializer, WorkflowHandle
except ModuleNotFoundError as error:
    raise Missing(f"running jobs needs {error.name}: pip install 'adaptry[jobs]'") from error

FILE = "jobs.sqlite"
_VERSION = "1"  # of the workflows below: those of another version are left to runners that know them
_SPARE = 6  # jobs of one need that a runner oversees beyond two for each step it does at once, so that none waits for the next
_PATIENCE = 0.1  # seconds between two looks at whether a step is done, for each job that is overseen here
_GIVEN_UP = ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_OVER = ["SUCCESS", *_GIVEN_UP]
_AT_ONCE = 500
_PAUSE = 1.0  # seconds until a catalog that cannot be reached is asked again
Json = dict[str, Any]  # what steps come to
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Work:
    """What a runner does for the engine: a step, the end of a job, and a look at whether it is still wanted."""

    step: Callable[[str, str, int], Json]
    end: Callable[[str, Json | None, Json | None], None]
    find: Callable[[str], JobInfo | None]


class _Plain(Serializer):
    """JSON: reading what lies in a database never runs code."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            data = {"error": f"{type(data).__name__}: {data}"}
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "adaptry_json"


class Engine:
    """One in a process. `place` is its database; `runner` the name under which work is given to this process."""

    def __init__(
        self, place: str, runner: str, work: Work, queues: Iterable[str], concurrency: int, poll: float
    ) -> None:
        self._queues = tuple(queues)
        self._concurrency = concurrency
        self._poll = poll
        self._work = work
        self._runner = runner
        self._here: set[str] = set()
        self._missed: set[str] = set()
        DBOS(
            config={
                "name": "adaptry",
                "system_database_url": place,
                "db_engine_kwargs": {} if place.startswith("sqlite:") else {"connect_args": dict(LIBPQ)},
                "executor_id": runner,
                "application_version": _VERSION,
                "log_level": "CRITICAL",
                "serializer": _Plain(),
                "use_listen_notify": False,
                "notification_listener_polling_interval_sec": poll,
            }
        )
        self._register()
        DBOS.listen_queues([*map(of_jobs, self._queues), *self._queues])

    @property
    def patience(self) -> float:
        """Seconds between two looks of a job at its step. The more jobs are overseen here, the longer, as each look costs."""
        return _PATIENCE * max(2, len(self._here))

    def launch(self) -> None:
        """From now on work is given to this process."""
        DBOS.launch()
        for queue in self._queues:
            many = 2 * self._concurrency + _SPARE
            DBOS.register_queue(of_jobs(queue), worker_concurrency=many, polling_interval_sec=self._poll)
            DBOS.register_queue(queue, worker_concurrency=self._concurrency, polling_interval_sec=self._poll)

    def hand(self, job: Unfinished) -> None:
        """Makes sure that a job is under way; again is no harm."""
        with _reached():
            DBOS.enqueue_workflow_with_options(
                {
                    "queue_name": of_jobs(queue_of(job.needs)),
                    "workflow_name": "job",
                    "workflow_id": _name(job),
                    "app_version": _VERSION,
                    "priority": job.priority,
                },
                job.id,
                job.tries,
            )

    def broken(self, jobs: Iterable[Unfinished]) -> tuple[Unfinished, ...]:
        """Those of these that the engine has given up, so that nobody would ever end them."""
        with _reached():
            given_up = DBOS.list_workflows(name="job", status=_GIVEN_UP, load_input=False, load_output=False)
        ids = {each.workflow_id for each in given_up}
        return tuple(job for job in jobs if _name(job) in ids)

    def take_over(self, living: Iterable[str]) -> int:
        """Gives out again what was under way at runners that are none of the `living`; how much that was.

        And what was given to this one and is not at work: its thread may have died with a connection to the database.
        """
        others = set(living) - {self._runner}
        with _reached():
            pending = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
            mine = {each.workflow_id for each in pending if each.executor_id == self._runner}
            idle = mine - self._here
            stuck, self._missed = idle & self._missed, idle  # one that has only just been given is not
            lost = [
                each
                for each in pending
                if each.workflow_id in stuck or each.executor_id not in {*others, self._runner}
            ]
            for each in lost:
                DBOS.resume_workflow(each.workflow_id, queue_name=each.queue_name)
        return len(lost)

    def forget(self, before: datetime, unknown: Callable[[set[str]], set[str]]) -> None:
        """Drops what is remembered of work that was over `before`, for jobs that are `unknown`."""
        kept = 0
        while True:
            with _reached():
                page = DBOS.list_workflows(
                    status=_OVER,
                    completed_before=before.isoformat(),
                    limit=_AT_ONCE,
                    offset=kept,
                    load_input=False,
                    load_output=False,
                )
            gone = unknown({_job_of(each.workflow_id) for each in page})
            some = [each.workflow_id for each in page if _job_of(each.workflow_id) in gone]
            kept += len(page) - len(some)
            if some:
                with _reached():
                    DBOS.delete_workflows(some)
            if len(page) < _AT_ONCE:
                return

    # The workflows. What they decide by comes from steps, so that who goes on with one decides the same.

    def _job(self, id: str, tries: int) -> None:
        job = self._is_open(id)
        if job is None:
            return
        run = _Run(id, tries, JobInfo.model_validate(job), self)
        (first,) = run.all([("start", job["needs"]["memory"])])
        if first is None:
            return
        pieces = first.pop("pieces", None)
        fault, result = first.get("fault"), first
        if pieces and not fault:
            done = run.all([(piece["name"], piece["memory"]) for piece in pieces])
            if any(each is None for each in done):
                return
            fault = next((each["fault"] for each in done if each and "fault" in each), None)
        if pieces and not fault:
            (last,) = run.all([("end", job["needs"]["memory"])])
            if last is None:
                return
            fault, result = last.get("fault"), last
        self._ending(id, None if fault else result, fault)

    @contextmanager
    def _at_it(self) -> Iterator[None]:
        """Around what a workflow does here, so that one that was given to this process and is not at work is noticed."""
        here = str(DBOS.workflow_id)
        self._here.add(here)
        try:
            yield
        finally:
            self._here.discard(here)

    def _register(self) -> None:
        """Makes them known to DBOS, which takes functions and no methods."""
        work = self._work

        @DBOS.step(name="is_open")
        def is_open(id: str) -> Json | None:
            found = _patiently(lambda: work.find(id))
            return found.model_dump(mode="json") if found and found.is_open else None

        @DBOS.step(name="do")
        def do(id: str, step: str, memory: int) -> Json:
            return _answered(lambda: work.step(id, step, memory))

        @DBOS.step(name="end")
        def end(id: str, result: Json | None, fault: Json | None) -> None:
            _patiently(lambda: work.end(id, result, fault))

        @DBOS.workflow(name="step")
        def step(id: str, step: str, memory: int) -> Json:
            with self._at_it():
                return do(id, step, memory)

        @DBOS.workflow(name="job")
        def job(id: str, tries: int) -> None:
            with self._at_it():
                self._job(id, tries)

        self._is_open, self._ending = is_open, end


@dataclass(slots=True)
class _Run:
    """One job's steps, from inside its workflow."""

    id: str
    tries: int
    job: JobInfo
    engine: Engine

    def all(self, steps: list[tuple[str, int]]) -> list[Json | None]:
        """What each step came to, all at work at once; None for those that the end of the job came before.

        After the first that fails nobody waits for the others: the job will be over, which ends them.
        """
        given = [(step, memory, self._given(step, memory, 0)) for step, memory in steps]
        found: list[Json | None] = []
        for step, memory, handle in given:
            came_to = handle.get_result(polling_interval_sec=self.engine.patience)
            again = 0
            while came_to.get("gone"):
                # Somebody else had begun it as well, and may be dead by now; or the job is over.
                if self.engine._is_open(self.id) is None:
                    return [None]
                again += 1
                came_to = self._given(step, memory, again).get_result(
                    polling_interval_sec=self.engine.patience
                )
            found.append(came_to)
            if "fault" in came_to:
                break
        return found

    def _given(self, step: str, memory: int, again: int) -> WorkflowHandle[Any]:
        """The step in the queue of what it needs. (`Any`: JSON.)"""
        needs = self.job.needs.model_copy(update={"memory": memory})
        return DBOS.enqueue_workflow_with_options(
            {
                "queue_name": queue_of(needs),
                "workflow_name": "step",
                "workflow_id": f"{self.id}.{self.tries}.{step}.{again}",
                "app_version": _VERSION,
                "priority": self.job.priority,
            },
            self.id,
            step,
            memory,
        )


def _name(job: Unfinished) -> str:
    """By which the engine knows this try at a job."""
    return f"{job.id}.{job.tries}"


def _job_of(workflow: str) -> str:
    """The job that a workflow's id was made of."""
    return workflow.partition(".")[0]


@contextmanager
def _reached() -> Iterator[None]:
    """Raises `Unavailable` where the engine's database cannot be reached."""
    try:
        yield
    except DBAPIError as error:
        raise Unavailable(f"cannot reach the jobs' database: {error.orig}") from error


def _patiently(action: Callable[[], Answer]) -> Answer:
    """What it answers, once the catalog can be reached: what failed for want of it would end a workflow, and not its job."""
    while True:
        try:
            return action()
        except Unavailable:
            time.sleep(_PAUSE)


def _answered(step: Callable[[], Json]) -> Json:
    """What a step comes to; what goes wrong with doing it is an answer too."""
    try:
        return _patiently(step)
    except AdaptryError as error:
        if error.told != error.message:
            traceback.print_exc()
        return {"fault": {"code": error.code, "message": error.told}}
    except Exception as error:  # noqa: BLE001  (whatever it is, the job ends and says so)
        traceback.print_exc()
        said = (
            f"{type(error).__name__}: {error} (a fault in adaptry; the runner's own output has the details)"
        )
        return {"fault": {"code": AdaptryError.code, "message": said}}


def database_of(folder: Path, catalog: str | None) -> str:
    """Where the engine keeps what it remembers, for a registry in `folder`."""
    if catalog is None:
        return f"sqlite:///{folder / FILE}"
    return catalog.replace("postgresql+psycopg://", "postgresql://").replace("postgres://", "postgresql://")
