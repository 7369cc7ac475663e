"""The messages between a runner and the process that runs one step of a job: a request in, JSON lines out.

The request is the process's only input: the step, and the registry's location with the submitter's rights.
The process sends progress, log lines and, at its end, a result or a fault.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from adaptry.registry.job_types.records import DAY, JobFailure


class _IpcModel(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class RegistryLocation(_IpcModel):
    """The registry's location: its folder, and the stores outside that folder."""

    folder: str
    catalog: str | None = None
    blobs: str | None = None
    blob_cache: int | None = None


class StepRequest(_IpcModel):
    """One `attempt` at a step. `before`: earlier results; `timeout`: seconds that it may take;
    `remotes`: other registries by name.

    `trace`: the headers of the runner's span. A runner that started before an upgrade sends no `timeout`, and
    calls the attempt a `turn`.
    """

    place: RegistryLocation
    job: str
    step: str
    attempt: int = Field(validation_alias=AliasChoices("attempt", "turn"))
    kind: str
    task: dict[str, Any]
    by: str
    rights: str
    before: dict[str, Any] = {}
    timeout: int = DAY
    device: str = "cpu"
    scratch: str
    remotes: dict[str, str] = {}
    trace: dict[str, str] = {}


class ShardStep(_IpcModel):
    """A step that the first step has planned: its size in bytes, and the memory that it takes."""

    name: str
    size: int
    memory: int


class StepResult(_IpcModel):
    """The result of a step. `pieces`: the shard steps to run before the last step, `end`. (`Any`: JSON.)"""

    result: dict[str, Any]
    pieces: tuple[ShardStep, ...] = ()


class ChildMessage(_IpcModel):
    """One message from the step's process. An `aside` goes to the runner's log, not to the submitter's."""

    what: Literal["stage", "say", "aside", "outcome", "fault"]
    text: str = ""
    done: int = 0
    total: int = 0
    outcome: StepResult | None = None
    fault: JobFailure | None = None
