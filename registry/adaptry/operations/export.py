"""Exports a version for a runtime and stores the result in the registry, as a version that names its parent.

A job calls `export_version`. For an export to a folder, see `adaptry.compute.exporting`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.export import ExportResult, export, get_export_format, prepare_export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.plan import ExportPlan, plan_repairs
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.display import format_number, html_facts, short_repr
from adaptry.core.errors import CheckFailed, Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName, is_folder_path
from adaptry.operations.base_registry import open_base
from adaptry.operations.derive import DeriveResult, derive
from adaptry.operations.sources import RegistryOpener, find_base
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult

_NO_OPTIONS = PushOptions()


@dataclass(frozen=True, slots=True, repr=False)
class ExportOutput:
    """An exported adapter: a description of its `location`, and the result of the export. `pushed` is the
    version if it was pushed to a registry, `folder` the folder if it was written to one.
    """

    location: str
    result: ExportResult
    pushed: PushResult | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        return short_repr(self, self.location, self.result.format, self._repairs())

    def _repr_html_(self) -> str:
        facts = [
            ("format", self.result.format),
            ("repairs", ", ".join(self.result.repairs) or "none"),
            ("relative error", format_number(self.result.equality.error or 0.0)),
        ]
        return html_facts(self.location, facts, self.result.notes)

    def _repairs(self) -> str:
        return f"repairs {', '.join(self.result.repairs)}" if self.result.repairs else "no repairs"


def export_version(
    registry: Registry,
    parent: ParentAdapter,
    runtime: Runtime,
    name: AdapterName,
    *,
    rank: int | None = None,
    energy: float | None = None,
    exact: bool = False,
    max_error: float | None = None,
    progress: Progress = no_progress,
) -> tuple[DeriveResult, ExportResult]:
    """Derives a version of `name` that `runtime` serves as trained, on the version's known base. Raises the
    errors of `derive_for_runtime`.
    """
    setting = replace(
        export_options(lambda: registry, parent, None, progress),
        rank=rank,
        energy=energy,
        exact=exact,
        max_error=max_error,
    )
    return derive_for_runtime(registry, parent, runtime, name, setting)


def export_options(
    connected: RegistryOpener, parent: ParentAdapter, base: Path | str | None, progress: Progress
) -> ExportOptions:
    """The options, with the base that the caller names, else the registered one. Its weights are opened when
    they are needed. Raises the errors of `find_base`.
    """
    if base is None:
        record, name = parent.base, parent.adapter.config.base_name
    else:
        found = find_base(connected, base)
        record, name = found.record, found.name or parent.adapter.config.base_name
    key = base or (str(parent.base.id) if parent.base else None)
    return ExportOptions(
        record=record,
        open_weights=None if key is None else partial(_open_weights, connected, key, progress),
        base_name=name,
        progress=progress,
    )


def write_export(
    connected: RegistryOpener,
    parent: ParentAdapter,
    runtime: Runtime | None,
    format: str | None,
    place: Path | AdapterName,
    setting: ExportOptions,
    options: PushOptions = _NO_OPTIONS,
) -> ExportOutput:
    """Writes `parent` for an engine or in a format: into a folder, or as a version in PEFT's format.

    Raises the errors of `export` or `derive_for_runtime`, and `Invalid` for a version in another format.
    """
    if isinstance(place, Path):
        made = export(parent, place, setting, runtime=runtime, format=format)
        return ExportOutput(str(place), made, folder=place)
    if format not in (None, "peft") or runtime is None:
        raise Invalid(
            "a version in the registry is PEFT's folder for an engine: name an engine, or a folder (./DIR)"
            " for other files"
        )
    derived, made = derive_for_runtime(connected(), parent, runtime, place, setting, options)
    return ExportOutput(derived.pushed.version.label, made, derived.pushed)


def plan_export(
    parent: ParentAdapter, runtime: Runtime | None, format: str | None, options: ExportOptions
) -> ExportPlan | None:
    """The engine to repair for: `runtime`, else the one engine that reads `format`; None if there is no
    engine.
    """
    engine = get_export_format(format).engine if format and runtime is None else None
    if runtime is None and engine is None:
        return None
    return plan_repairs(parent, runtime or Runtime(str(engine)), options)


def _open_weights(connected: RegistryOpener, key: Path | str, progress: Progress) -> HfCheckpoint:
    if isinstance(key, Path) or is_folder_path(key, of_base=True):
        return open_checkpoint(key)
    return open_base(connected(), key, progress=progress)


def derive_for_runtime(
    registry: Registry,
    parent: ParentAdapter,
    runtime: Runtime,
    name: AdapterName,
    setting: ExportOptions,
    options: PushOptions = _NO_OPTIONS,
) -> tuple[DeriveResult, ExportResult]:
    """`parent` repaired for `runtime`, as a version of `name` with parent, recipe and error.

    Raises `CheckFailed` if it must be merged (a checkpoint cannot be a version of an adapter) or needs no
    repair, and the errors of repairing and deriving.
    """
    with prepare_export(parent, setting, runtime=runtime, format=None) as found:
        made = found.repaired
        assert made is not None
        if made.plan.needs_merge:
            finding = made.plan.needs_merge[0]
            raise CheckFailed(
                f"{parent.label} must go into its base's weights for {runtime} ({finding.reason}), and a"
                " model cannot be a version of an adapter: write it to a folder, -o ./DIR"
            )
        if not made.steps:
            raise CheckFailed(f"{runtime} serves {parent.label} as trained, so no repaired version is needed")
        derived = derive(registry, made.lazy_adapter(), name, options=options, progress=setting.progress)
        return derived, found.result(())
