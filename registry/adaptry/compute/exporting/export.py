"""Exports an adapter: repairs it for a runtime and writes it in a format, as a folder that appears
atomically.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adaptry.checks import check
from adaptry.checks.runtimes import Runtime
from adaptry.checks.weights import check_weights
from adaptry.compute.conversion.base_shapes import check_conversion_base
from adaptry.compute.exporting.apply_repairs import RepairedAdapter, repair_for_runtime
from adaptry.compute.exporting.equality import Equality
from adaptry.compute.exporting.formats import FORMATS, ExportFormat
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.report import CheckReport

_BY_PEFT = frozenset(["peft_refuses", "names_not_loaded"])
"""Codes of findings about what PEFT does, which matter only for files that it reads."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The result: format, repairs in order, the error, and notes."""

    format: str
    repairs: tuple[str, ...]
    equality: Equality
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedExport:
    """An adapter that is ready to be written in `format`, with the repairs of `repaired`, if there are
    any.
    """

    parent: ParentAdapter
    format: ExportFormat
    repaired: RepairedAdapter | None

    def write(self, target: Path, options: ExportOptions) -> ExportResult:
        """Writes the files. Raises the errors of the format's function."""
        return self.result(self.format.write(self.parent, target, options))

    def result(self, notes: tuple[str, ...]) -> ExportResult:
        if self.repaired is None:
            return ExportResult(self.format.name, (), Equality(), notes)
        names = tuple(step.repair.name for step in self.repaired.steps)
        return ExportResult(self.format.name, names, self.repaired.equality, (*self.repaired.notes, *notes))


def export(
    parent: ParentAdapter,
    target: Path,
    options: ExportOptions,
    *,
    runtime: Runtime | None = None,
    format: str | None = None,
) -> ExportResult:
    """Writes `parent` to the folder `target`, after `prepare_export`. Raises the errors of repairs and the
    format, and `CheckFailed` if a weight is NaN or infinite.
    """
    warnings = _check_values(parent)
    with prepare_export(parent, options, runtime=runtime, format=format) as found:
        made = found.write(target, options)
    return replace(made, notes=(*warnings, *made.notes))


@contextmanager
def prepare_export(
    parent: ParentAdapter,
    options: ExportOptions,
    *,
    runtime: Runtime | None = None,
    format: str | None = None,
) -> Iterator[PreparedExport]:
    """Yields `parent`, prepared for `runtime`, in the runtime's format or in `format`; valid during the
    block.

    Without a runtime, a format that belongs to one engine is repaired for that engine; other formats are
    written without repairs. A checkpoint needs no repairs, since merging handles everything. Raises `Invalid`
    for an unknown format, `CheckFailed` for a base other than the adapter's own, unless the options allow it.
    """
    chosen = get_export_format(format) if format else None
    engine = chosen.engine if chosen else None
    runtime = runtime or (Runtime(engine) if engine else None)
    if base := options.conversion_base(reading=False):
        check_conversion_base(parent, base, options.other_base)
    if runtime is None or (chosen and chosen.name == "checkpoint"):
        found = PreparedExport(parent, chosen or FORMATS["peft"], None)
        _check_fits(found, options)
        yield found
        return
    _require_scale(parent)
    with repair_for_runtime(parent, runtime, options) as made:
        found = PreparedExport(made.parent, _format(made, chosen), made)
        _check_fits(found, options)
        yield found


def _require_scale(parent: ParentAdapter) -> None:
    """Raises `CheckFailed` for a scale of 0. A repair would move it into the tensors, unseen by checks."""
    for finding in check(parent.adapter, None).findings:
        if finding.code == "scale_zero":
            raise CheckFailed(
                f"{parent.label}: {finding.reason} [{finding.code}] → {finding.remedy_for(parent.label)}"
            )


def _check_values(parent: ParentAdapter) -> tuple[str, ...]:
    """Reads all weights; a note if the adapter has no effect."""
    report = CheckReport(findings=tuple(check_weights(parent.adapter)))
    if report.is_blocked:
        raise CheckFailed(f"{parent.label}: {report.sentence()}")
    return tuple(
        f"{found.reason}; served, it answers as the base does [{found.code}]"
        for found in report.findings
        if found.code == "untrained"
    )


def _check_fits(found: PreparedExport, options: ExportOptions) -> None:
    """Raises `CheckFailed` if the result cannot work on the known base. Merging has its own checks."""
    if options.record is None or found.format.name == "checkpoint":
        return
    report = check(found.parent.adapter, options.record, options.base_name)
    if report.is_blocked and not _is_unread_by_peft(found, report, options):
        raise CheckFailed(f"{found.parent.label}: {report.sentence()}")


def _is_unread_by_peft(found: PreparedExport, report: CheckReport, options: ExportOptions) -> bool:
    """Whether the only problem is that PEFT refuses the result but not the original: a repair gave it the
    layout of an engine whose files PEFT does not read, such as separate experts of several ranks.
    """
    if not {finding.code for finding in report.blocking} <= _BY_PEFT:
        return False
    if found.format.engine is None or found.repaired is None:
        return False
    original = found.repaired.original.adapter
    return not check(original, options.record, options.base_name).is_blocked


def get_export_format(name: str) -> ExportFormat:
    """The format called `name`. Raises `Invalid`, with the list of formats, if it is unknown."""
    if name not in FORMATS:
        raise Invalid(f"unknown format {name[:40]!r} (one of: {', '.join(FORMATS)})")
    return FORMATS[name]


def _format(made: RepairedAdapter, chosen: ExportFormat | None) -> ExportFormat:
    """The plan's format, or the chosen one. Raises `Invalid` if an adapter that must be merged needs a
    checkpoint.
    """
    if chosen is None or chosen.name == made.plan.format:
        return FORMATS[made.plan.format]
    if made.plan.needs_merge:
        found = made.plan.needs_merge[0]
        raise Invalid(
            f"{made.original.label} must go into its base's weights for {made.plan.runtime} ({found.reason}),"
            f" which {chosen.name} does not contain: omit --format, or pass --format checkpoint"
        )
    return chosen
