"""What passes between a runner and the child process that does one step of a job: a paper in, lines of JSON out.

The paper is all that the child is given: the step, and the registry as the submitter sees it. What comes back is how far it
is, what it has to say, and at its end a result or an error.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from adaptry.core.identity import Role
from adaptry.registry.job_types.records import JobFault


class _IpcModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegistryLocation(_IpcModel):
    """Where the registry is: its folder, and the stores that are not in it."""

    folder: str
    catalog: str | None = None
    blobs: str | None = None
    blob_cache: int | None = None


class StepRequest(_IpcModel):
    """A step of a job, at a turn. `before` is what the steps before it came to; `remotes` are other registries by name."""

    place: RegistryLocation
    job: str
    step: str
    turn: int
    kind: str
    task: dict[str, Any]
    by: str
    role: Role
    namespaces: tuple[str, ...]
    before: dict[str, Any] = {}
    device: str = "cpu"
    scratch: str
    remotes: dict[str, str] = {}


class ShardStep(_IpcModel):
    """A step that follows from the first one: its size in bytes, and the memory that it takes."""

    name: str
    size: int
    memory: int


class StepResult(_IpcModel):
    """What a step came to; `pieces` are what is to be done before the last step, `end`. (`Any`: JSON.)"""

    result: dict[str, Any]
    pieces: tuple[ShardStep, ...] = ()


class ChildMessage(_IpcModel):
    """One line of what a child says; an `aside` is for the runner's own output, and not for who asked for the job."""

    what: Literal["stage", "say", "aside", "outcome", "fault"]
    text: str = ""
    done: int = 0
    total: int = 0
    outcome: StepResult | None = None
    fault: JobFault | None = None
