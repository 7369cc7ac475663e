"""Plans the repairs after which an engine serves an adapter as trained: from the verdict, without reading
weights.

A precondition hides later findings (another tool's file cannot be checked further), so after its repairs the
result is checked again. The plan has the steps that are known now.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from adaptry.adapters.tensor_names import is_input_embedding
from adaptry.checks.binding import bind
from adaptry.checks.runtimes import Runtime, RuntimeVerdict, check_runtime, repairs
from adaptry.compute.exporting.formats import FORMAT_OF_ENGINE, FORMATS
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.repair_table import BY_REMEDY, MERGE_REMEDIES, REPAIRS, Repair
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.display import format_count, html_table, short_repr
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.report import Finding


@dataclass(frozen=True, slots=True)
class PlannedRepair:
    """A repair and the findings that require it."""

    repair: Repair
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """`steps` are the repairs in order. `needs_merge` are findings that require a merge into the base's
    weights instead of all repairs. `unresolved` are findings without a repair.
    """

    runtime: Runtime
    verdict: RuntimeVerdict
    steps: tuple[PlannedRepair, ...]
    needs_merge: tuple[Finding, ...] = ()
    unresolved: tuple[Finding, ...] = ()

    @property
    def format(self) -> str:
        """The format of the files to write."""
        return "checkpoint" if self.needs_merge else FORMAT_OF_ENGINE.get(self.runtime.engine, "peft")

    def __repr__(self) -> str:
        steps = ", ".join(step.repair.name for step in self.steps)
        merged = "merged into its base" if self.needs_merge else ""
        left = format_count(len(self.unresolved), "finding") + " left" if self.unresolved else ""
        what = merged or (f"repairs {steps}" if steps else "nothing to repair")
        return short_repr(self, str(self.runtime), self.format, what, left, "nothing is written yet")

    def _repr_html_(self) -> str:
        rows = [(sentence,) for sentence in self.sentences()]
        return html_table(f"Export for {self.runtime} as {self.format}", ("step",), rows)

    def sentences(self) -> Iterable[str]:
        """The plan as lines of text."""
        for step in self.steps:
            accuracy = "exact" if step.repair.is_exact else "its error is measured"
            repair = f"{step.repair.name}: {step.repair.description} ({accuracy})"
            yield f"{repair}, because {step.findings[0].reason}"
        for finding in self.needs_merge:
            yield f"merge: into the base's weights, because {finding.reason}"
        for finding in self.unresolved:
            yield f"no repair: {finding.reason} → {finding.remedy}"
        if not (self.steps or self.needs_merge or self.unresolved):
            yield f"nothing to repair: {self.runtime} serves it as trained"


def plan_repairs(
    parent: ParentAdapter, runtime: Runtime, options: ExportOptions, done: Set[str] = frozenset()
) -> ExportPlan:
    """The repairs that the verdict of `runtime` on `parent` requires. `done`: names of repairs that were made
    before, which are not made again for PEFT alone."""
    judged = check_runtime(parent.adapter, runtime, options.record)
    required: dict[str, list[Finding]] = {}
    merged, left = [], []
    heads = _unstored_heads(parent, options)
    handled = FORMATS[FORMAT_OF_ENGINE.get(runtime.engine, "peft")].handled_remedies
    for finding in (*judged.findings, *_of_peft(parent, runtime, options, done)):
        if finding.remedy in handled:
            continue
        is_needed = finding.severity != "notes"
        repair = BY_REMEDY.get(finding.remedy)
        if finding.remedy == repairs.DISK_NAMES and is_needed and not heads.isdisjoint(finding.modules):
            merged.append(finding)
        elif repair and (is_needed or _is_free(repair, options)):
            required.setdefault(repair.name, []).append(finding)
        elif finding.remedy in MERGE_REMEDIES and is_needed:
            merged.append(finding)
        elif is_needed:
            left.append(finding)
    covered = {name for chosen in required for name in REPAIRS[chosen].covers}
    steps = [
        PlannedRepair(repair, tuple(required[name]))
        for name, repair in REPAIRS.items()
        if name in required.keys() - covered
    ]
    return ExportPlan(runtime, judged, () if merged else tuple(steps), tuple(merged), tuple(left))


def _unstored_heads(parent: ParentAdapter, options: ExportOptions) -> frozenset[str]:
    """Updated output heads that the base ties to its embedding and does not store. They have no name on disk,
    and the embedding's name belongs to another module.
    """
    if options.record is None:
        return frozenset()
    stored = options.record.tensors
    placed = bind(parent.adapter, options.record).intended.placed
    paths = {target.module.path for target in placed if target.tied}
    return frozenset(
        path for path in paths if not is_input_embedding(path) and f"{path}.weight" not in stored
    )


def _of_peft(
    parent: ParentAdapter, runtime: Runtime, options: ExportOptions, done: Set[str]
) -> Iterable[Finding]:
    """Findings about parts that PEFT would drop or refuse on the known base, even if the engine would not,
    and that a repair of the config corrects, so that the export is the same adapter for both.

    Names are corrected too if the engine has its own file format; otherwise they follow the engine. A repair
    in `done` that did not correct a finding is not planned again: PEFT does not read every layout that an
    engine needs.
    """
    if runtime.engine in ("peft", "diffusers") or options.record is None:
        return ()
    wanted = {repairs.LIST_TARGETS, repairs.NO_SAVED_LISTED}
    if runtime.engine in FORMAT_OF_ENGINE:
        wanted.add(repairs.LOADED_NAMES)
    found = check_runtime(parent.adapter, Runtime("peft"), options.record).findings
    wanted -= {remedy for remedy in wanted if BY_REMEDY[remedy].name in done}
    return [finding for finding in found if finding.remedy in wanted and finding.severity != "notes"]


def check_repairable(parent: ParentAdapter, plan: ExportPlan) -> None:
    """Raises `CheckFailed` with every finding that has no repair, and its remedy."""
    if plan.unresolved:
        reasons = "; ".join(
            f"{finding.reason} [{finding.code}] → {finding.remedy}" for finding in plan.unresolved
        )
        raise CheckFailed(f"{parent.label} cannot be exported for {plan.runtime}: {reasons}")


def _is_free(repair: Repair, options: ExportOptions) -> bool:
    at_hand = {"": True, "shapes": options.record is not None, "weights": options.open_weights is not None}
    return repair.is_exact and at_hand[repair.needs]
