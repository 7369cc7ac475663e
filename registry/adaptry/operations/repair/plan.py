"""Plans a repair: a pure function, so that the plan can be shown before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from adaptry.registry.records import Value
from adaptry.storage.catalog.audit import IntegrityProblem

RepairMethod = Literal["replace", "set aside", "rebuild", "leave"]


class RegistryRepairStep(Value):
    """One repair step. `source` is the source of the bytes. For `leave`, `reason` is the remedy for the
    operator.
    """

    how: RepairMethod
    kind: str
    key: str
    where: str
    reason: str
    source: str | None = None

    def __str__(self) -> str:
        match self.how:
            case "replace":
                return f"replace {self.where} from {self.source}"
            case "set aside":
                return f"set {self.where} aside, as no source has it ({self.reason})"
            case "rebuild":
                return f"rebuild derived rows: {self.where} ({self.reason})"
        return f"cannot repair {self.where}: {self.reason}"


class RegistryRepairPlan(Value):
    """The repair steps, in order."""

    steps: tuple[RegistryRepairStep, ...]

    @property
    def is_empty(self) -> bool:
        return not self.steps


_ORDER: tuple[str, ...] = ("manifest", "file", "derived", "outdated", "row", "database")
"""Rows derived from files are rebuilt after manifests and files are repaired."""


def plan_repair(
    problems: Sequence[IntegrityProblem], source_of: Callable[[IntegrityProblem], str | None]
) -> RegistryRepairPlan:
    """Decides on the repair of each problem; `source_of` returns the source of a file or manifest."""
    steps = [_step(problem, source_of) for problem in problems]
    once = {
        (step.kind, step.key if step.how != "leave" else f"{step.where} {step.reason}"): step
        for step in steps
    }
    return RegistryRepairPlan(steps=tuple(sorted(once.values(), key=lambda step: _ORDER.index(step.kind))))


def _step(
    problem: IntegrityProblem, source_of: Callable[[IntegrityProblem], str | None]
) -> RegistryRepairStep:
    source = source_of(problem) if problem.kind in ("file", "manifest") else None
    how: RepairMethod = "leave"
    if source is not None:
        how = "replace"
    elif problem.kind == "file":
        how = "set aside"
    elif problem.kind in ("derived", "outdated"):
        how = "rebuild"
    return RegistryRepairStep(
        how=how,
        kind=problem.kind,
        key=problem.key,
        where=problem.where,
        reason=problem.reason + _ADVICE.get(problem.kind if how == "leave" else "", ""),
        source=source,
    )


_ADVICE = {
    "row": "; its correct value is unknown: restore a backup, or correct it by hand",
    "database": "; restore a backup of the database",
    "manifest": "; push the same files again, or name a copy with --from",
}
