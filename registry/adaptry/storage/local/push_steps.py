"""Carries out pushes in a batch: they share reads, flushes to the disk, and a write transaction.

A push is a generator that reads and checks, and yields each step that inspects weights, stores files or
writes rows. One thread advances several pushes step by step, so that pushes that arrive together do not each
need a thread, a lock and a flush. If one of them fails, the others continue.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from adaptry.adapters.inspection.files import WeightsFile, inspect_together
from adaptry.adapters.inspection.inspector import TIMEOUT, InspectorBusy
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.core.digest import Digest
from adaptry.core.errors import copies_of
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.small_files import store_files

if TYPE_CHECKING:
    from adaptry.registry.records import PushResult

Result = TypeVar("Result")
_BATCH_TIMEOUT = 0.2  # seconds that a batch waits for an inspecting process


@dataclass(frozen=True, slots=True)
class InspectFiles:
    """Weights to inspect; the results are sent to the generator, by digest."""

    files: Mapping[Digest, WeightsFile]


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """Files that must be on the disk before the next step."""

    files: Mapping[Digest, bytes]


@dataclass(frozen=True, slots=True)
class WriteRows:
    """A durable transaction, whose result is sent to the generator once it is committed."""

    write: Callable[[Transaction], PushResult]


Step: TypeAlias = InspectFiles | StoreFiles | WriteRows
StepResult: TypeAlias = "PushResult | Mapping[Digest, WeightsInspection] | None"
Steps: TypeAlias = Generator[Step, StepResult, Result]
PushSteps: TypeAlias = "Steps[PushResult]"


@dataclass(eq=False)
class BatchedPush:
    """A push that has not begun, with the context variables of its caller, such as the request's id. `tenant`
    is its namespace.
    """

    context: RegistryContext
    tenant: str
    _steps: PushSteps
    _variables: contextvars.Context = field(default_factory=contextvars.copy_context)

    def __post_init__(self) -> None:
        self.outcome: PushResult | Exception | None = None
        """The result or the error, once the push has ended."""
        self.next: Step | None = None

    def advance(self, last: StepResult | Exception) -> None:
        """Runs until the next step, given the result or the error of the last one."""
        if isinstance(last, Exception):
            self._run(lambda: self._steps.throw(last))
        else:
            self._run(lambda: self._steps.send(last))

    def write(self, tx: Transaction) -> PushResult:
        """Makes the changes of the push in `tx`."""
        assert isinstance(self.next, WriteRows)
        return self._variables.run(self.next.write, tx)

    def _run(self, step: Callable[[], Step]) -> None:
        self.next = None
        try:
            self.next = self._variables.run(step)
        except StopIteration as end:
            self.outcome = end.value
        except Exception as error:  # noqa: BLE001  (the caller of the push raises it)
            self.outcome = error


def finish_push(context: RegistryContext, tenant: str, steps: PushSteps) -> PushResult:
    """Carries out one push. Raises its error."""
    push = BatchedPush(context, tenant, steps)
    push.advance(None)
    (outcome,) = _finish([push], TIMEOUT)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def finish_together(pushes: Sequence[BatchedPush]) -> list[PushResult | Exception]:
    """Carries out pushes into one registry, with their files. Returns the result or the error of each.

    The error is `InspectorBusy` if no inspecting process was free at once. Such a push must be repeated in
    another thread, where it can wait for its namespace's turn without delaying other namespaces.
    """
    # They read the same snapshot: nothing is written before all have read.
    with pushes[0].context.catalog.read_together():
        for push in pushes:
            push.advance(None)
    return _finish(pushes, _BATCH_TIMEOUT)


def _finish(pushes: Sequence[BatchedPush], timeout: float) -> list[PushResult | Exception]:
    while waiting := [push for push in pushes if push.next is not None]:
        if inspecting := [push for push in waiting if isinstance(push.next, InspectFiles)]:
            _inspect(timeout, inspecting)
        elif storing := [push for push in waiting if isinstance(push.next, StoreFiles)]:
            _store(storing)
        else:
            _write(waiting)
    return [push.outcome for push in pushes if push.outcome is not None]


def _inspect(timeout: float, pushes: Sequence[BatchedPush]) -> None:
    """Inspects all weights together. If that fails, inspects each push alone: one may be the cause."""
    first = pushes[0]
    files: dict[Digest, WeightsFile] = {}
    of_each: list[Iterable[Digest]] = []
    for push in pushes:
        assert isinstance(push.next, InspectFiles)
        files |= push.next.files
        of_each.append(push.next.files)
    try:
        made = inspect_together(first.context.inspector, list(files.values()), first.tenant, timeout)
    except InspectorBusy as busy:
        for push in pushes:
            push.advance(busy)
        return
    except Exception as error:  # noqa: BLE001  (raised by the push)
        _retry_individually(partial(_inspect, timeout), pushes, error)
        return
    found = dict(zip(files, made, strict=True))
    for push, own in zip(pushes, of_each, strict=True):
        push.advance({digest: found[digest] for digest in own})  # a push stores all results that it is sent


def _store(pushes: Sequence[BatchedPush]) -> None:
    """Stores all files together, or if that fails, those of each push alone."""
    files: dict[Digest, bytes] = {}
    for push in pushes:
        assert isinstance(push.next, StoreFiles)
        files |= push.next.files
    try:
        store_files(pushes[0].context, files)
    except Exception as error:  # noqa: BLE001  (raised by the push)
        _retry_individually(_store, pushes, error)
        return
    for push in pushes:
        push.advance(None)


def _retry_individually(
    step: Callable[[Sequence[BatchedPush]], None], pushes: Sequence[BatchedPush], error: Exception
) -> None:
    """Repeats a step for each push, after all of them failed together."""
    if len(pushes) == 1:
        pushes[0].advance(error)
        return
    for push in pushes:
        step([push])


def _write(pushes: Sequence[BatchedPush]) -> None:
    outcomes: Sequence[PushResult | Exception]
    try:
        outcomes = pushes[0].context.catalog.write_each([push.write for push in pushes])
    except Exception as error:  # noqa: BLE001  (raised by each push)
        outcomes = copies_of(error, len(pushes))
    for push, outcome in zip(pushes, outcomes, strict=True):
        push.advance(outcome)
