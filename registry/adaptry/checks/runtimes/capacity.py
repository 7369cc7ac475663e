"""The options that a server needs for several adapters, and the memory that they take.

Only adapters that are served as trained count. An engine that reserves slots uses the largest rank for every
module of every slot, whatever adapter is in it: rank · (in + out) numbers of two bytes per module, on each
GPU that holds the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from adaptry.adapters.adapter import Adapter
from adaptry.checks.runtimes.option_conditions import largest_rank
from adaptry.checks.runtimes.rule import CheckSubject, RuntimeRules, RuntimeVerdict, ServerNeeds
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.table import ENGINES
from adaptry.checks.runtimes.verdicts import check_runtime
from adaptry.core.errors import CheckFailed

_NUMBER = 2  # bytes: engines hold adapters in the model's 16-bit dtype
_RANKS = ("max_lora_rank", "lora_max_rank")


class AdapterSize(BaseModel):
    """One adapter in a plan: the memory of its tensors in bytes, and whether it is served as trained."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    rank: int | None
    bytes: int
    verdict: RuntimeVerdict


class ServerPlan(BaseModel):
    """The plan of a server. `slot_bytes` is the size of one slot, `total_bytes` that of all. If the engine
    reserves no slots, they are the size of the largest adapter and the sum of all. `targets` are the modules'
    last names.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    runtime: str
    flags: tuple[str, ...]
    rank: int
    slots: int
    targets: tuple[str, ...]
    slot_bytes: int
    total_bytes: int
    adapters: tuple[AdapterSize, ...]

    @property
    def unservable(self) -> tuple[AdapterSize, ...]:
        return tuple(one for one in self.adapters if one.verdict.outcome != "as_trained")


def build_server_plan(
    subjects: Mapping[str, CheckSubject], runtime: Runtime, slots: int | None = None
) -> ServerPlan:
    """The plan for adapters by name. `slots` is the number in use at once (by default all).

    Raises `CheckFailed` if none of them would be served as trained.
    """
    engine = ENGINES[runtime.engine]
    sized = tuple(_sized(name, subject, runtime) for name, subject in subjects.items())
    served = [subjects[one.name] for one in sized if one.verdict.outcome == "as_trained"]
    if not served:
        first = next((finding for one in sized for finding in one.verdict.findings), None)
        why = f": {first.reason} → {first.remedy}" if first else ""
        raise CheckFailed(f"{engine.title} would serve none of these adapters as trained{why}")
    count = min(slots or len(served), len(served))
    targets = sorted({target for subject in served for target in subject.spec.targets})
    needs = ServerNeeds(_rank(served, engine, runtime), count, tuple(targets))
    slot = (
        _slot_bytes(served, needs.rank)
        if engine.reserves_slots
        else max(_adapter_bytes(one.adapter) for one in served)
    )
    return ServerPlan(
        runtime=str(_started(engine, runtime, needs)),
        flags=(*engine.start(needs), *_switches(engine, runtime)),
        rank=needs.rank,
        slots=count,
        targets=needs.targets,
        slot_bytes=slot,
        total_bytes=slot * count
        if engine.reserves_slots
        else sum(_adapter_bytes(one.adapter) for one in served),
        adapters=sized,
    )


def _sized(name: str, subject: CheckSubject, runtime: Runtime) -> AdapterSize:
    return AdapterSize(
        name=name,
        rank=largest_rank(subject),
        bytes=_adapter_bytes(subject.adapter),
        verdict=check_runtime(subject.adapter, runtime, subject.base),
    )


def _adapter_bytes(adapter: Adapter) -> int:
    return adapter.spec.parameters * _NUMBER


def _rank(served: Sequence[CheckSubject], engine: RuntimeRules, runtime: Runtime) -> int:
    """The limit on ranks: as given, else the smallest that the engine accepts and that fits all adapters."""
    largest = max((largest_rank(subject) or 1) for subject in served)
    for name in _RANKS:
        option = engine.option(name)
        if option is not None:
            return runtime.number(name) or option.smallest_from(largest) or largest
    return largest


def _started(engine: RuntimeRules, runtime: Runtime, needs: ServerNeeds) -> Runtime:
    ranks = {name: str(needs.rank) for name in _RANKS if engine.option(name)}
    return Runtime(runtime.engine, runtime.version, {**runtime.options, **ranks})


def _switches(engine: RuntimeRules, runtime: Runtime) -> Iterator[str]:
    """The flags of the switches that were given."""
    for option in engine.options:
        if option.kind == "switch" and runtime.options.get(option.name) == "true":
            yield option.flag


def _slot_bytes(served: Sequence[CheckSubject], rank: int) -> int:
    """The size of a slot in bytes. It has every module that any of the adapters changes."""
    widths = {
        module.path: module.fan_in + module.fan_out for subject in served for module in subject.spec.modules
    }
    return sum(widths.values()) * rank * _NUMBER
