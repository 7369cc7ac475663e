"""`convert` and `resize`: an adapter as a LoRA, in another layout, or at another rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry.core.validation import validated
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
from adaptry.operations.sources import open_parent

if TYPE_CHECKING:
    from adaptry.compute.conversion.rank_choice import RankPlan
    from adaptry.operations.derived_output import DerivedResult


@python_errors
def convert(
    source: SourceLike,
    *,
    to: AdapterName | Path | str,
    base: BaseLike | None = None,
    layout: Literal["transformers4", "transformers5"] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    uniform: bool = False,
    dtype: DtypeLike | None = None,
    drop_bias: bool = False,
    whole_weights: Literal["none"] | None = None,
    part: str | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult:
    """Converts an adapter of any method to a plain LoRA, or rewrites its file in another layout.

    A LoRA that another tool wrote (MLX, diffusers, kohya's sd-scripts, AdapterHub, torchtune, llama.cpp) is
    rewritten in PEFT's layout without changing any value. Methods that equal a LoRA are converted exactly;
    for all others, the nearest LoRA is computed, and its error is measured (docs/converting.md).

        result = adaptry.convert("./loha", to="acme/as-lora", rank=16, registry=registry)
        print(result.outcome.error)  # ‖ΔW − ΔW'‖ / ‖ΔW‖ over all modules

    Args:
        source: A folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        to: A name in the registry, or a folder.
        base: The adapter's base: a folder, a name or an id. None: its own, if identified by its content.
        layout: Only rewrites the file with the module names of this version of transformers, without changing
            weights. Can be combined only with `base` and the arguments about the result.
        rank: The maximum rank of every update.
        energy: Instead of `rank`: the smallest ranks that keep this share of ‖ΔW‖² (0 to 1).
        uniform: The same rank for every module, padded with zeros.
        dtype: The dtype of the factors. None: unchanged, or float32 if they are computed.
        drop_bias: Leaves out biases that the adapter changes.
        whole_weights: `"none"` leaves out `modules_to_save`, biases and `trainable_token_indices`.
        part: The part of a pipeline to convert from another tool's file: `unet`, `text_encoder`, …
        other_base: Allows a base other than the adapter's own.
        metrics, alias, force_reason: As in `push`, for the resulting version.
        replace: Replaces an adapter in the folder `to`.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such folder, version or base.
        Invalid: arguments that exclude each other, or a base that is needed and unknown.
        Unsupported, CheckFailed: an adapter that no LoRA can represent, or that does not fit the base.
        Conflict: the folder `to` contains something else.
        MissingDependency: torch is not installed.
        Withdrawn, PermissionDenied, StorageFull, Unauthenticated, Unavailable.
    """
    from adaptry.compute.conversion.options import ConvertOptions
    from adaptry.operations.conversion import ConversionRequest, plan_conversion
    from adaptry.operations.derived_output import write_result

    named = parse_source(source)
    target = parse_destination(to, metrics, alias, force_reason, replace)
    options = validated(
        ConvertOptions,
        rank=rank,
        energy=energy,
        uniform=uniform,
        dtype=parse_dtype(dtype),
        drop_bias=drop_bias,
        whole_weights=whole_weights,
        other_base=other_base,
    )
    request = ConversionRequest(options, None if base is None else parse_base(base), layout, part)
    with lazily_opened(registry, create=True) as connected, shown_progress(progress) as bars:
        lazy_adapter = plan_conversion(connected, named, request, warn=warn, progress=bars)
        return write_result(
            connected,
            lazy_adapter,
            target.place,
            options=target.options,
            replace=target.replace,
            progress=bars,
        )


@overload
def resize(
    source: SourceLike,
    *,
    to: AdapterName | Path | str,
    rank: int | None = None,
    energy: float | None = None,
    allowed: Sequence[int] | None = None,
    uniform: bool = False,
    dtype: DtypeLike = "float32",
    whole_weights: Literal["none"] | None = None,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult: ...


@overload
def resize(
    source: SourceLike,
    *,
    to: None = None,
    rank: int | None = None,
    energy: float | None = None,
    allowed: Sequence[int] | None = None,
    uniform: bool = False,
    dtype: DtypeLike = "float32",
    whole_weights: Literal["none"] | None = None,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> RankPlan: ...


@python_errors
def resize(
    source: SourceLike,
    *,
    to: AdapterName | Path | str | None = None,
    rank: int | None = None,
    energy: float | None = None,
    allowed: Sequence[int] | None = None,
    uniform: bool = False,
    dtype: DtypeLike = "float32",
    whole_weights: Literal["none"] | None = None,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult | RankPlan:
    """Changes the rank of a LoRA: each module gets the nearest update of its new rank.

        print(adaptry.resize("acme/tone", registry=registry))  # what each rank would keep
        adaptry.resize("acme/tone", allowed=[8, 16, 32], energy=0.99, to="acme/tone-small", registry=registry)

    Args:
        source: A folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        to: A name in the registry, or a folder. None: only returns the share that each rank would keep.
        rank: The maximum rank of every module.
        energy: Instead of `rank`: the smallest ranks that keep this share of ‖ΔW‖² (0 to 1).
        allowed: The ranks that a server accepts. All modules get the same one: the smallest that keeps
            `energy` (default: everything), or the largest if none does.
        uniform: The same rank for every module, padded with zeros.
        dtype: The dtype of the factors; singular values are computed in float64.
        whole_weights: `"none"` leaves out `modules_to_save`, biases and `trainable_token_indices`.
        metrics, alias, force_reason: As in `push`, for the resulting version.
        replace: Replaces an adapter in the folder `to`.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such folder or version.
        Invalid: neither or several of `rank`, `energy` and `allowed`.
        Unsupported, CheckFailed: the adapter is not exactly a sum of factors.
        Conflict: the folder `to` contains something else.
        MissingDependency: torch is not installed.
        Withdrawn, PermissionDenied, StorageFull, Unauthenticated, Unavailable.
    """
    from adaptry.compute.conversion.rank_choice import choose_rank, plan_ranks
    from adaptry.compute.conversion.resize import ResizeOptions
    from adaptry.compute.conversion.resize import resize as resize_adapter
    from adaptry.operations.derived_output import write_result

    named = parse_source(source)
    ranks = _checked_ranks(rank, energy, allowed)
    target = None if to is None else parse_destination(to, metrics, alias, force_reason, replace)
    with lazily_opened(registry, create=target is not None) as connected, shown_progress(progress) as bars:
        parent = open_parent(connected, named, warn=warn, progress=bars)
        if target is None:
            return plan_ranks(parent, ranks if rank is None else [rank, *ranks])
        if ranks:
            rank, energy, uniform = choose_rank(parent, ranks, energy).rank, None, True
        if rank is None and energy is None:
            raise Invalid(
                "pass rank=16, energy=0.99 or allowed=[8, 16]; without to=, the share that each rank keeps is"
                " shown"
            )
        options = validated(
            ResizeOptions,
            rank=rank,
            energy=energy,
            uniform=uniform,
            dtype=parse_dtype(dtype),
            whole_weights=whole_weights,
        )
        lazy_adapter = resize_adapter(parent, options)
        return write_result(
            connected,
            lazy_adapter,
            target.place,
            options=target.options,
            replace=target.replace,
            progress=bars,
        )


def _checked_ranks(rank: int | None, energy: float | None, allowed: Sequence[int] | None) -> list[int]:
    """The allowed ranks; empty if every rank is allowed. Raises `Invalid`."""
    if energy is not None and not 0 < energy <= 1:
        raise Invalid(f"energy must be a share above 0 and up to 1, not {energy:g}")
    if allowed is None:
        return []
    if rank is not None:
        raise Invalid("allowed chooses the rank: leave rank out")
    if not allowed or min(allowed) < 1:
        raise Invalid(f"allowed must be ranks of 1 or more, as in [8, 16, 32], not {list(allowed)!r:.80}")
    return list(allowed)
