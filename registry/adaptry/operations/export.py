"""Exports a version for a runtime and stores the result in the registry, as a version that names its parent.

A job calls `export_version`. For an export to a folder, see `adaptry.compute.exporting`.
"""

from __future__ import annotations

from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.export import ExportResult, prepare_export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.base_registry import open_base
from adaptry.operations.derive import DeriveResult, derive
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions

_NO_OPTIONS = PushOptions()


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
    """Makes of a version a version of `name` that `runtime` serves as trained, on the base it is known to be
    for. Raises what `derive_for_runtime` raises."""
    key = str(parent.base.id) if parent.base else None
    setting = ExportOptions(
        record=parent.base,
        open_weights=(lambda: open_base(registry, key, progress=progress)) if key else None,
        base_name=parent.adapter.config.base_name,
        rank=rank,
        energy=energy,
        exact=exact,
        max_error=max_error,
        progress=progress,
    )
    return derive_for_runtime(registry, parent, runtime, name, setting)


def derive_for_runtime(
    registry: Registry,
    parent: ParentAdapter,
    runtime: Runtime,
    name: AdapterName,
    setting: ExportOptions,
    options: PushOptions = _NO_OPTIONS,
) -> tuple[DeriveResult, ExportResult]:
    """`parent` repaired for `runtime`, as a version of `name` with its parent, recipe and how near it is.

    Raises `CheckFailed` where it must be merged (a checkpoint is no version of an adapter) or nothing is to
    be repaired, and what repairing and deriving raise.
    """
    with prepare_export(parent, setting, runtime=runtime, format=None) as found:
        made = found.repaired
        assert made is not None
        if made.plan.needs_merge:
            finding = made.plan.needs_merge[0]
            raise CheckFailed(
                f"{parent.label} must go into its base's weights for {runtime} ({finding.reason}), and a"
                " model is no version of an adapter: write it to a folder, -o ./DIR"
            )
        if not made.steps:
            raise CheckFailed(
                f"{runtime} serves {parent.label} as it was trained, so no other version is needed"
            )
        derived = derive(registry, made.lazy_adapter(), name, options=options, progress=setting.progress)
        return derived, found.result(())
