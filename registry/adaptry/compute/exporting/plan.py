"""What is to be done so that an engine serves an adapter as it was trained: decided from the verdict, before a weight is
read.

A gate hides what lies behind it (of another tool's file little can be said), so after its steps the result is looked at
again. The plan says what is known now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adaptry.checks.runtimes import Runtime, Verdict, verdict
from adaptry.compute.exporting.formats import FORMATS, OF_ENGINE
from adaptry.compute.exporting.options import Setting
from adaptry.compute.exporting.repair_table import BY_REMEDY, MERGED, REPAIRS, Repair
from adaptry.compute.lazy_adapters.lazy_adapter import Parent
from adaptry.core.errors import Refused
from adaptry.core.report import Finding


@dataclass(frozen=True, slots=True)
class Step:
    """A repair and the findings that ask for it."""

    repair: Repair
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` in order; `merged`: findings for which it must go into the base's weights, and nothing else is then done;
    `open`: findings that nothing here mends."""

    runtime: Runtime
    verdict: Verdict
    steps: tuple[Step, ...]
    merged: tuple[Finding, ...] = ()
    open: tuple[Finding, ...] = ()

    @property
    def format(self) -> str:
        return "checkpoint" if self.merged else OF_ENGINE.get(self.runtime.engine, "peft")

    def sentences(self) -> Iterable[str]:
        """The plan as lines to be read."""
        for step in self.steps:
            told = "exact" if step.repair.is_exact else "measured"
            yield f"{step.repair.name}: {step.repair.does} ({told}): {step.findings[0].reason}"
        for finding in self.merged:
            yield f"merge: it goes into the base's weights: {finding.reason}"
        for finding in self.open:
            yield f"open: {finding.reason} → {finding.remedy}"
        if not (self.steps or self.merged or self.open):
            yield f"nothing to repair: {self.runtime} serves it as trained"


def plan(parent: Parent, runtime: Runtime, setting: Setting) -> Plan:
    """What the verdict of `runtime` on `parent` asks for."""
    judged = verdict(parent.adapter, runtime, setting.record)
    wanted: dict[str, list[Finding]] = {}
    merged, left = [], []
    mended = FORMATS[OF_ENGINE.get(runtime.engine, "peft")].mends
    for finding in judged.findings:
        if finding.remedy in mended:
            continue
        is_needed = finding.severity != "notes"
        repair = BY_REMEDY.get(finding.remedy)
        if repair and (is_needed or _is_free(repair, setting)):
            wanted.setdefault(repair.name, []).append(finding)
        elif finding.remedy in MERGED and is_needed:
            merged.append(finding)
        elif is_needed:
            left.append(finding)
    covered = {name for chosen in wanted for name in REPAIRS[chosen].covers}
    steps = [
        Step(repair, tuple(wanted[name]))
        for name, repair in REPAIRS.items()
        if name in wanted.keys() - covered
    ]
    return Plan(runtime, judged, () if merged else tuple(steps), tuple(merged), tuple(left))


def check_possible(parent: Parent, plan: Plan) -> None:
    """Raises `Refused` with every finding that nothing mends, and what its remedy is."""
    if plan.open:
        said = "; ".join(f"{finding.reason} [{finding.code}] → {finding.remedy}" for finding in plan.open)
        raise Refused(f"{parent.label} cannot be exported for {plan.runtime}: {said}")


def _is_free(repair: Repair, setting: Setting) -> bool:
    at_hand = {"": True, "shapes": setting.record is not None, "weights": setting.open_weights is not None}
    return repair.is_exact and at_hand[repair.needs]
