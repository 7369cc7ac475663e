"""Executes a plan repair by repair, and checks each result, until the engine serves the adapter as trained.

Every repair is written to a separate folder and read back, so that files are checked and measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.checks.runtimes import Runtime, repairs
from adaptry.compute.exporting.equality import Equality, measure_equality
from adaptry.compute.exporting.error_bound import check_error
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.plan import ExportPlan, PlannedRepair, check_repairable, plan_repairs
from adaptry.compute.exporting.rewrite import rewrite_adapter
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter_into
from adaptry.compute.lazy_adapters.lazy_adapter import Json, LazyAdapter, ParentAdapter
from adaptry.core.display import format_count
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

_ROUNDS = 4
"""Maximum number of rounds. A failed precondition can hide a further repair, a few times in a row; more
rounds indicate an endless loop."""


@dataclass(frozen=True, slots=True)
class RepairedAdapter:
    """`parent` is the repaired adapter, `original` the one it was made from; `steps` are the repairs in
    order. `plan.needs_merge` are findings for which it must be merged into its base instead.
    """

    original: ParentAdapter
    parent: ParentAdapter
    steps: tuple[PlannedRepair, ...]
    plan: ExportPlan
    equality: Equality
    notes: tuple[str, ...]

    def lazy_adapter(self) -> LazyAdapter:
        """The result as a lazy adapter derived from the original, with parent, recipe and figures."""
        recipe: Json = {
            "operation": "export",
            "inputs": [self.original.recipe_entry()],
            "runtime": str(self.plan.runtime),
            "repairs": [step.repair.name for step in self.steps],
        }
        made = rewrite_adapter(self.parent, recipe, figures=self.equality.figures, notes=self.notes)
        return replace(made, parents=(self.original,))


@contextmanager
def repair_for_runtime(
    parent: ParentAdapter, runtime: Runtime, options: ExportOptions
) -> Iterator[RepairedAdapter]:
    """Yields `parent`, repaired so that `runtime` serves it as trained; it is valid during the block.

    Raises `CheckFailed` if a finding has no repair, if the result is still not served as trained, or if its
    error exceeds the limit; and the errors of the repairs.
    """
    with tempfile.TemporaryDirectory(prefix="adaptry-") as folder:
        yield _apply_repairs(parent, runtime, options, Path(folder))


def _apply_repairs(
    original: ParentAdapter, runtime: Runtime, options: ExportOptions, folder: Path
) -> RepairedAdapter:
    current, done, notes = original, list[PlannedRepair](), list[str]()
    outcomes: list[ComputeResult] = []
    for _ in range(_ROUNDS):
        decided = plan_repairs(current, runtime, options, {step.repair.name for step in done})
        if decided.needs_merge:
            whole = original if original.adapter.format is current.adapter.format else current
            return RepairedAdapter(
                original,
                whole,
                tuple(done),
                decided,
                Equality(),
                (*_verdict_notes(decided), _merge_note(decided), *notes),
            )
        check_repairable(current, decided)
        if not decided.steps:
            found = measure_equality(original, current, outcomes)
            _check_exact(original, found, options)
            check_error(original, found, runtime, options)
            return RepairedAdapter(
                original,
                current,
                tuple(done),
                decided,
                found,
                (*_verdict_notes(decided), *_unknown_base(options), *notes),
            )
        for step in decided.steps:
            adapter = step.repair.make(current, runtime, options)
            place = folder / f"{len(done)}-{step.repair.name}"
            place.mkdir()
            outcomes.append(write_adapter_into(adapter, place, options.progress))
            current = ParentAdapter(open_dir(place), original.label, base=original.base)
            done.append(step)
            notes.extend(adapter.notes)
    # The last finding's remedy is a repair that has been made.
    raise CheckFailed(
        f"after {format_count(len(done), 'repair')}, {original.label} is still not served as trained by"
        f" {runtime}: {decided.steps[0].findings[0].reason} →"
        f" {repairs.MERGE.replace('REF', original.label)}"
    )


def _verdict_notes(decided: ExportPlan) -> tuple[str, ...]:
    """Notes of the verdict that no repair can change, such as an engine version without rules."""
    return tuple(
        f"{finding.reason}: {finding.remedy}" if finding.remedy else finding.reason
        for finding in decided.verdict.findings
        if finding.code == "rules_of_another_version"
    )


def _merge_note(decided: ExportPlan) -> str:
    """A note that the result is not an adapter, although a caller who names an engine expects one."""
    return (
        f"the result is a whole model, not an adapter: {decided.needs_merge[0].reason}, so the update is"
        " merged into the base's weights"
    )


def _unknown_base(options: ExportOptions) -> tuple[str, ...]:
    if options.record is not None:
        return ()
    return (
        "its base is unknown, so names and shapes were not compared with it: pass the base with --base (a"
        " folder, or the name of a registered base)",
    )


def _check_exact(original: ParentAdapter, found: Equality, options: ExportOptions) -> None:
    if options.exact and found.error > 0:
        raise CheckFailed(
            f"the repaired {original.label} differs from it by {found.error:.3g} of its update, which --exact"
            " forbids: omit --exact, or merge it (--format checkpoint)"
        )
