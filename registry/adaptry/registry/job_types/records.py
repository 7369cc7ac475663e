"""Values about jobs: requests, states, logs and runners. They are also the wire format."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from adaptry.registry.records import Value

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN: tuple[JobState, ...] = ("queued", "running")
"""The states of jobs that have not ended."""

GIB = 1 << 30
DAY = 86_400  # seconds


class _JobValue(BaseModel):
    """A caller's input. Unknown fields are refused, so that no option is silently ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


Device = Literal["cpu", "cuda", "hpu", "mps", "npu", "xpu"]
DEVICES = get_args(Device)
"""A kind of device, by torch's name."""


class JobNeeds(_JobValue):
    """Requirements on a runner: a `device` (None: any), a `tag`, and for one step, bytes of `memory` and at
    most `timeout` seconds, after which the step is ended and the job fails.
    """

    device: Device | None = None
    tag: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    memory: int = Field(default=2 * GIB, ge=1, le=1 << 50)
    timeout: int = Field(default=DAY, ge=1, le=366 * DAY)


class JobOrder(_JobValue):
    """A submitted job: the `kind` of task and its fields, its requirements, and its priority: 1 comes first,
    9 last. A day of waiting counts as one level.
    """

    kind: str
    task: dict[str, Any]  # parsed by the kind's model
    needs: JobNeeds = JobNeeds()
    priority: int = Field(default=5, ge=1, le=9)


class ScheduleInfo(Value):
    """A job request that is submitted whenever its `cron` expression is due, with the rights of the
    schedule's author.

    `is_held`: the author's token was revoked, so nothing is submitted.
    """

    name: str
    cron: str
    order: JobOrder
    namespace: str
    by: str
    created_at: datetime
    is_held: bool = False


class JobFailure(Value):
    """Why a job failed: the stable code of the error, and its message."""

    code: str
    message: str


class JobStage(Value):
    """A job's progress: the current activity, and how much of it is done, mostly in bytes."""

    activity: str
    done: int
    total: int


class JobInfo(Value):
    """A job. `namespace` owns it (empty: the registry). `attempts` is 1 plus the restarts on request;
    `pieces` is its number of shard steps; `runners` are those that work on it now; `result` depends on its
    kind.
    """

    id: str
    kind: str
    task: dict[str, Any]
    namespace: str
    state: JobState
    needs: JobNeeds
    priority: int
    submitted_by: str
    submitted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 1
    pieces: int = 0
    stage: JobStage | None = None
    runners: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    error: JobFailure | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


class LogLine(Value):
    """A line of a job's log. `step` is `start`, `piece-3` or `end`."""

    at: datetime
    step: str
    text: str


class RunnerInfo(Value):
    """A runner: its resources, and its last heartbeat. Only administrators see its machine (`host`)."""

    id: str
    host: str | None = None
    devices: tuple[str, ...]
    tags: tuple[str, ...]
    concurrency: int
    memory: int
    seen_at: datetime
