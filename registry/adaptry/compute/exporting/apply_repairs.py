"""A plan carried out: repair after repair, each result opened and looked at, until the engine serves it as trained.

Every repair is written to a folder of its own and read back, so that what is judged and measured is what a file holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.equality import Equality, equality
from adaptry.compute.exporting.options import Setting
from adaptry.compute.exporting.plan import Plan, Step, check_possible, plan
from adaptry.compute.exporting.rewrite import rewritten
from adaptry.compute.lazy_adapters.folder_writer import Outcome, write_into
from adaptry.compute.lazy_adapters.lazy_adapter import Draft, Json, Parent
from adaptry.core.errors import Refused

_ROUNDS = 4
"""A gate may hide a repair, and that another; more than these would be going round in circles."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """`parent` is the adapter as the engine is to get it, `original` the one it was made of; `steps` in the order they were
    made. `merged`: it is to go into its base's weights, for these findings."""

    original: Parent
    parent: Parent
    steps: tuple[Step, ...]
    plan: Plan
    equality: Equality
    notes: tuple[str, ...]

    def draft(self) -> Draft:
        """The result as what is made of the original: its parent, its recipe, its figures."""
        recipe: Json = {
            "operation": "export",
            "inputs": [self.original.named()],
            "runtime": str(self.plan.runtime),
            "repairs": [step.repair.name for step in self.steps],
        }
        made = rewritten(self.parent, recipe, figures=self.equality.figures, notes=self.notes)
        return replace(made, parents=(self.original,))


@contextmanager
def repaired(parent: Parent, runtime: Runtime, setting: Setting) -> Iterator[Repaired]:
    """`parent` as `runtime` serves it as trained, for as long as the block lasts.

    Raises `Refused` where a finding has no repair, or the result is not served as trained after all; and what the repairs
    raise.
    """
    with tempfile.TemporaryDirectory(prefix="adaptry-") as folder:
        yield _carried_out(parent, runtime, setting, Path(folder))


def _carried_out(original: Parent, runtime: Runtime, setting: Setting, folder: Path) -> Repaired:
    current, done, notes = original, list[Step](), list[str]()
    outcomes: list[Outcome] = []
    for _ in range(_ROUNDS):
        decided = plan(current, runtime, setting)
        if decided.merged:
            whole = original if original.adapter.format is current.adapter.format else current
            return Repaired(original, whole, tuple(done), decided, Equality(), (*_said(decided), *notes))
        check_possible(current, decided)
        if not decided.steps:
            found = equality(original, current, outcomes)
            _check_exact(original, found, setting)
            return Repaired(original, current, tuple(done), decided, found, (*_said(decided), *notes))
        for step in decided.steps:
            draft = step.repair.make(current, runtime, setting)
            place = folder / f"{len(done)}-{step.repair.name}"
            place.mkdir()
            outcomes.append(write_into(draft, place, setting.progress))
            current = Parent(open_dir(place), original.label, base=original.base)
            done.append(step)
            notes.extend(draft.notes)
    raise Refused(
        f"after {len(done)} repairs {original.label} is still not served as trained by {runtime}: "
        f"{decided.verdict.findings[0].reason} → {decided.verdict.findings[0].remedy}"
    )


def _said(decided: Plan) -> tuple[str, ...]:
    """What the verdict notes and no repair can change, such as that nobody read this version of the engine."""
    return tuple(
        f"{finding.reason}: {finding.remedy}" if finding.remedy else finding.reason
        for finding in decided.verdict.findings
        if finding.code == "rules_of_another_version"
    )


def _check_exact(original: Parent, found: Equality, setting: Setting) -> None:
    if setting.exact and found.error > 0:
        raise Refused(
            f"the repaired {original.label} differs from it by {found.error:.3g} of its update, and --exact forbids it: "
            "leave --exact out, or merge it (--format checkpoint)"
        )
