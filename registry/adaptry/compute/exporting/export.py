"""The verb: an adapter repaired for a runtime and written in a format, as a folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry.checks import check
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.apply_repairs import RepairedAdapter, repair_for_runtime
from adaptry.compute.exporting.equality import Equality
from adaptry.compute.exporting.formats import FORMATS, ExportFormat
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, Invalid


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was made: format, repairs in order, how near to what was trained, and what to tell."""

    format: str
    repairs: tuple[str, ...]
    equality: Equality
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedExport:
    """An adapter to be written in `format`, after the repairs of `repaired` if a runtime asked for some."""

    parent: ParentAdapter
    format: ExportFormat
    repaired: RepairedAdapter | None

    def write(self, target: Path, options: ExportOptions) -> ExportResult:
        """Raises what the format's function raises."""
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
    """`parent` in the folder `target`, as `prepare_export` decides. Raises as repairs and the format do."""
    with prepare_export(parent, options, runtime=runtime, format=format) as found:
        return found.write(target, options)


@contextmanager
def prepare_export(
    parent: ParentAdapter,
    options: ExportOptions,
    *,
    runtime: Runtime | None = None,
    format: str | None = None,
) -> Iterator[PreparedExport]:
    """`parent` for `runtime`, in its format or in `format`; for as long as the block lasts.

    A format that is one engine's is repaired for that engine where no runtime is said; any other without a
    runtime is the adapter as it is. A checkpoint needs no repairs: merging does all of it. Raises `Invalid`
    for a format there is not.
    """
    chosen = get_export_format(format) if format else None
    engine = chosen.engine if chosen else None
    runtime = runtime or (Runtime(engine) if engine else None)
    if runtime is None or (chosen and chosen.name == "checkpoint"):
        found = PreparedExport(parent, chosen or FORMATS["peft"], None)
        _check_fits(found, options)
        yield found
        return
    with repair_for_runtime(parent, runtime, options) as made:
        found = PreparedExport(made.parent, _format(made, chosen), made)
        _check_fits(found, options)
        yield found


def _check_fits(found: PreparedExport, options: ExportOptions) -> None:
    """Raises `CheckFailed` if the result cannot work on the known base. Merging looks for itself."""
    if options.record is None or found.format.name == "checkpoint":
        return
    report = check(found.parent.adapter, options.record, options.base_name)
    if report.is_blocked:
        raise CheckFailed(f"{found.parent.label}: {report.sentence()}")


def get_export_format(name: str) -> ExportFormat:
    """Raises `Invalid` with what there is."""
    if name not in FORMATS:
        raise Invalid(f"no format {name[:40]!r}: there are {', '.join(FORMATS)}")
    return FORMATS[name]


def _format(made: RepairedAdapter, chosen: ExportFormat | None) -> ExportFormat:
    """The plan's format, or the one asked for. Raises `Invalid` if a file cannot hold what must be merged."""
    if chosen is None or chosen.name == made.plan.format:
        return FORMATS[made.plan.format]
    if made.plan.needs_merge:
        found = made.plan.needs_merge[0]
        raise Invalid(
            f"{made.original.label} must go into its base's weights for {made.plan.runtime} ({found.reason}),"
            f" which {chosen.name} does not hold: leave --format out, or say --format checkpoint"
        )
    return chosen
