"""What is said about jobs: an order, how it goes, its log, and who runs jobs. Values that are also the wire
format.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from adaptry.registry.records import Value

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN: tuple[JobState, ...] = ("queued", "running")
"""The states that a job leaves by itself."""

GIB = 1 << 30


class _JobValue(BaseModel):
    """What a caller says: unknown fields are refused, so that nobody's wish is lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Device = Literal["cpu", "cuda", "hpu", "mps", "npu", "xpu"]
DEVICES = get_args(Device)
"""What torch computes on, by its name there."""


class JobNeeds(_JobValue):
    """What a runner must have: a `device` (None: any), a `tag` that somebody gave it, bytes of `memory` for
    one step.
    """

    device: Device | None = None
    tag: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    memory: int = Field(default=2 * GIB, ge=1, le=1 << 50)


class JobOrder(_JobValue):
    """A job asked for: the `kind` of task and its fields, what it needs, and its turn: 1 comes first, 9
    last.
    """

    kind: str
    task: dict[str, Any]  # read by the kind's own model
    needs: JobNeeds = JobNeeds()
    priority: int = Field(default=5, ge=1, le=9)


class ScheduleInfo(Value):
    """An order that is given whenever its `cron` expression says so, with the rights of who asked for that.

    `is_held`: their token was revoked, so it is not given.
    """

    name: str
    cron: str
    order: JobOrder
    namespace: str
    by: str
    created_at: datetime
    is_held: bool = False


class JobFault(Value):
    """Why a job failed: the stable code of the error, and its sentence."""

    code: str
    message: str


class JobStage(Value):
    """How far a job has come: what it does, and how much of it, in the unit of what (bytes, mostly)."""

    what: str
    done: int
    total: int


class JobInfo(Value):
    """A job. `namespace` is whose it is (empty: the registry's own), `tries` how often it was begun anew on
    request; `pieces` how many parts it was cut into, `runners` who works on it now; `result` depends on its
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
    tries: int = 1
    pieces: int = 0
    stage: JobStage | None = None
    runners: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    fault: JobFault | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


class LogLine(Value):
    """A line that a step of a job said: `step` is `start`, `piece-3`, `end`."""

    at: datetime
    step: str
    text: str


class RunnerInfo(Value):
    """Who runs jobs: with what, and when it was last heard of. On which machine (`host`), administrators are
    told.
    """

    id: str
    host: str | None = None
    devices: tuple[str, ...]
    tags: tuple[str, ...]
    concurrency: int
    memory: int
    seen_at: datetime
