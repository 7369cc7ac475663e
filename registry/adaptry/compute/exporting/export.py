"""The verb: an adapter repaired for a runtime, and written in a format, as a folder that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry.checks import check
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.apply_repairs import Repaired, repaired
from adaptry.compute.exporting.equality import Equality
from adaptry.compute.exporting.formats import FORMATS, ExportFormat
from adaptry.compute.exporting.options import Setting
from adaptry.compute.lazy_adapters.lazy_adapter import Parent
from adaptry.core.errors import Invalid, Refused


@dataclass(frozen=True, slots=True)
class Exported:
    """What was made: in which format, by which repairs in order, how near to what was trained, and what to tell."""

    format: str
    repairs: tuple[str, ...]
    equality: Equality
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """An adapter as it is to be written: in `format`, after the repairs of `made` where a runtime asked for some."""

    parent: Parent
    format: ExportFormat
    made: Repaired | None

    def write(self, target: Path, setting: Setting) -> Exported:
        """Raises what the format's function raises."""
        return self.exported(self.format.write(self.parent, target, setting))

    def exported(self, notes: tuple[str, ...]) -> Exported:
        if self.made is None:
            return Exported(self.format.name, (), Equality(), notes)
        names = tuple(step.repair.name for step in self.made.steps)
        return Exported(self.format.name, names, self.made.equality, (*self.made.notes, *notes))


def export(
    parent: Parent,
    target: Path,
    setting: Setting,
    *,
    runtime: Runtime | None = None,
    format: str | None = None,
) -> Exported:
    """`parent` in the folder `target`, as `ready` decides. Raises what repairing and the format's function raise."""
    with ready(parent, setting, runtime=runtime, format=format) as found:
        return found.write(target, setting)


@contextmanager
def ready(
    parent: Parent, setting: Setting, *, runtime: Runtime | None = None, format: str | None = None
) -> Iterator[Ready]:
    """`parent` for `runtime`, in its format or in `format`; for as long as the block lasts.

    A format that is one engine's is repaired for that engine where no runtime is said; any other without a runtime is
    the adapter as it is. A checkpoint needs no repairs: merging does all of it. Raises `Invalid` for a format there is not.
    """
    chosen = format_named(format) if format else None
    engine = chosen.engine if chosen else None
    runtime = runtime or (Runtime(engine) if engine else None)
    if runtime is None or (chosen and chosen.name == "checkpoint"):
        found = Ready(parent, chosen or FORMATS["peft"], None)
        _check_fits(found, setting)
        yield found
        return
    with repaired(parent, runtime, setting) as made:
        found = Ready(made.parent, _format(made, chosen), made)
        _check_fits(found, setting)
        yield found


def _check_fits(found: Ready, setting: Setting) -> None:
    """Raises `Refused` where what is to be written cannot work on the base that is known. Merging looks for itself."""
    if setting.record is None or found.format.name == "checkpoint":
        return
    report = check(found.parent.adapter, setting.record, setting.base_name)
    if report.is_blocked:
        raise Refused(f"{found.parent.label}: {report.sentence()}")


def format_named(name: str) -> ExportFormat:
    """Raises `Invalid` with what there is."""
    if name not in FORMATS:
        raise Invalid(f"no format {name[:40]!r}: there are {', '.join(FORMATS)}")
    return FORMATS[name]


def _format(made: Repaired, chosen: ExportFormat | None) -> ExportFormat:
    """The plan's format, unless another was asked for. Raises `Invalid` where a file cannot hold what must be merged."""
    if chosen is None or chosen.name == made.plan.format:
        return FORMATS[made.plan.format]
    if made.plan.merged:
        found = made.plan.merged[0]
        raise Invalid(
            f"{made.original.label} must go into its base's weights for {made.plan.runtime} ({found.reason}), which {chosen.name} "
            "does not hold: leave --format out, or say --format checkpoint"
        )
    return chosen
