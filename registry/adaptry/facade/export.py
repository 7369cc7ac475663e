"""`export`: an adapter as an engine needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as with_fields
from pathlib import Path
from typing import TYPE_CHECKING, overload

from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry.facade.arguments import (
    BaseLike,
    DtypeLike,
    SourceLike,
    parse_base,
    parse_dtype,
    parse_source,
)
from adaptry.facade.destination import parse_destination
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, lazily_opened
from adaptry.facade.warnings import warn
from adaptry.operations.sources import open_parent, with_configured_base

if TYPE_CHECKING:
    from adaptry.compute.exporting.plan import ExportPlan
    from adaptry.operations.export import ExportOutput


@overload
def export(
    source: SourceLike,
    *,
    to: AdapterName | Path | str,
    engine: str | None = None,
    format: str | None = None,
    base: BaseLike | None = None,
    rank: int | None = None,
    energy: float | None = None,
    dtype: DtypeLike | None = None,
    exact: bool = False,
    max_error: float | None = None,
    part: str | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> ExportOutput: ...


@overload
def export(
    source: SourceLike,
    *,
    to: None = None,
    engine: str | None = None,
    format: str | None = None,
    base: BaseLike | None = None,
    rank: int | None = None,
    energy: float | None = None,
    dtype: DtypeLike | None = None,
    exact: bool = False,
    max_error: float | None = None,
    part: str | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> ExportPlan: ...


@python_errors
def export(
    source: SourceLike,
    *,
    to: AdapterName | Path | str | None = None,
    engine: str | None = None,
    format: str | None = None,
    base: BaseLike | None = None,
    rank: int | None = None,
    energy: float | None = None,
    dtype: DtypeLike | None = None,
    exact: bool = False,
    max_error: float | None = None,
    part: str | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> ExportOutput | ExportPlan:
    """Writes an adapter in the form that an engine needs, repaired so that it is served as trained.

    The engine's verdict determines the repairs. The error of the result is measured; if it exceeds
    `max_error`, the export is refused (docs/exporting.md).

        adaptry.export("acme/tone@prod", engine="llama.cpp", to="./tone-gguf", registry=registry)

    Args:
        source: A folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        to: A folder, or a name in the registry (for a version in PEFT's format). None: only returns the plan.
        engine: The engine, with its version and limits: `"vllm@0.33,max_lora_rank=64"`.
        format: The files to write, as in `"gguf"`. None: the engine's.
        base: The adapter's base: a folder, a name or an id. None: its own, if identified by its content.
        rank: The maximum rank when another method is converted to a LoRA.
        energy: Instead of `rank`: the smallest ranks that keep this share of ‖ΔW‖² (0 to 1).
        dtype: The dtype of computed tensors, such as those of a conversion.
        exact: Refuses repairs that would change any value of the update.
        max_error: The largest relative error ‖ΔW − ΔW'‖ / ‖ΔW‖ (0 to 1). None: 0.1.
        part: The part of a pipeline that the adapter belongs to, as in `unet`.
        other_base: Allows a base other than the adapter's own.
        metrics, alias, force_reason: As in `push`, for the resulting version.
        replace: Replaces an adapter in the folder `to`.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such folder, version or base.
        Invalid: neither `engine` nor `format`, an unknown one, or `rank` and `energy` together.
        CheckFailed: the engine cannot serve the adapter as trained, or a base is needed and unknown.
        Unsupported: a format that cannot represent this adapter.
        Conflict: the folder `to` contains something else.
        MissingDependency: torch, or the package that writes the format, is not installed.
        Withdrawn, PermissionDenied, StorageFull, Unauthenticated, Unavailable.
    """
    from adaptry.checks.runtimes import parse_runtime
    from adaptry.operations.export import export_options, plan_export, write_export
    from adaptry.operations.known_base import base_or_known

    if engine is None and format is None:
        raise Invalid('pass engine="vllm" (or another engine), or format="gguf" (or another format)')
    _check_shares(rank, energy, max_error)
    named = parse_source(source)
    target = None if to is None else parse_destination(to, metrics, alias, force_reason, replace)
    runtime = None if engine is None else parse_runtime(engine)
    asked = None if base is None else parse_base(base)
    with (
        lazily_opened(registry, create=target is not None) as connected,
        shown_progress(progress) as bars,
        base_or_known(connected, named, asked) as given,
    ):
        parent = with_configured_base(open_parent(connected, named, warn=warn, progress=bars), given)
        options = with_fields(
            export_options(connected, parent, given, bars),
            rank=rank,
            energy=energy,
            dtype=parse_dtype(dtype),
            exact=exact,
            max_error=max_error,
            part=part,
            other_base=other_base,
            may_replace=replace,
        )
        if target is not None:
            return write_export(connected, parent, runtime, format, target.place, options, target.options)
        plan = plan_export(parent, runtime, format, options)
    if plan is None:
        raise Invalid("a plan shows what an engine needs repaired: pass engine=")
    return plan


def _check_shares(rank: int | None, energy: float | None, max_error: float | None) -> None:
    if rank is not None and energy is not None:
        raise Invalid("pass rank or energy, not both: each decides the rank")
    if rank is not None and rank < 1:
        raise Invalid(f"rank must be at least 1, not {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise Invalid(f"energy must be a share above 0 and up to 1, not {energy:g}")
    if max_error is not None and not 0 <= max_error <= 1:
        raise Invalid(f"max_error must be a share from 0 to 1, not {max_error:g}")
