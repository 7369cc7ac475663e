"""`combine` and `stack`: several adapters of one base made into one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from adaptry.core.refs import AdapterName
from adaptry.core.validation import validated
from adaptry.facade.arguments import (
    BaseLike,
    DtypeLike,
    Weighted,
    parse_base,
    parse_dtype,
    parse_inputs,
)
from adaptry.facade.destination import Destination, parse_destination
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, lazily_opened
from adaptry.facade.warnings import warn

if TYPE_CHECKING:
    from adaptry.compute.combining.plan import CombinePlan
    from adaptry.operations.derived_output import DerivedResult


@overload
def combine(
    inputs: Weighted,
    *,
    to: AdapterName | Path | str,
    method: str = "linear",
    parameters: Mapping[str, float | bool | str] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    uniform: bool = False,
    dtype: DtypeLike = "float32",
    seed: int = 0,
    whole_weights: str | None = None,
    base: BaseLike | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult: ...


@overload
def combine(
    inputs: Weighted,
    *,
    to: None = None,
    method: str = "linear",
    parameters: Mapping[str, float | bool | str] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    uniform: bool = False,
    dtype: DtypeLike = "float32",
    seed: int = 0,
    whole_weights: str | None = None,
    base: BaseLike | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> CombinePlan: ...


@python_errors
def combine(
    inputs: Weighted,
    *,
    to: AdapterName | Path | str | None = None,
    method: str = "linear",
    parameters: Mapping[str, float | bool | str] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    uniform: bool = False,
    dtype: DtypeLike = "float32",
    seed: int = 0,
    whole_weights: str | None = None,
    base: BaseLike | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult | CombinePlan:
    """Combines adapters of one base into one LoRA, by one of twenty methods (docs/combining.md lists them).

    Ranks and modules may differ; a module that an adapter does not change counts as 0. A resulting version
    records its parents and recipe, and the same recipe gives the same version.

        adaptry.combine(
            {"acme/tone": 1, "acme/facts": 0.5}, method="ties", rank=16, to="acme/both", registry=registry
        )

    Args:
        inputs: Adapters, or a mapping from adapters to their weights (finite numbers, 1 if not given). Each
            is a folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        to: A name in the registry, or a folder. None: only returns the plan.
        method: `linear`, `svd`, `ties`, `dare_linear`, …
        parameters: The method's parameters, as in `{"density": 0.3}`.
        rank: Reduces every module to this rank.
        energy: Instead of `rank`: the smallest ranks that keep this share of ‖ΔW‖² (0 to 1).
        uniform: The same rank for every module, padded with zeros, for engines that need that.
        dtype: The dtype of the factors; everything is computed in float32 or more.
        seed: For methods that draw random numbers.
        whole_weights: The input whose whole weights (`modules_to_save`, biases and
            `trainable_token_indices`) are kept, if those of several inputs differ; by its name. `"none"`
            leaves them out.
        base: The base of inputs whose base the registry does not know: a folder, a name or an id. None:
            their own, if it is identified by its content.
        other_base: Allows adapters that were trained on different bases.
        metrics, alias, force_reason: As in `push`, for the resulting version.
        replace: Replaces an adapter in the folder `to`.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such folder, version or base.
        Invalid: an unknown method or parameter; `rank` and `energy` together.
        CheckFailed: adapters that cannot be combined, or a result that does not fit the base.
        Unsupported: an adapter that is not a sum of factors.
        Conflict: the folder `to` contains something else.
        MissingDependency: torch is not installed.
        Withdrawn, PermissionDenied, StorageFull, Unauthenticated, Unavailable.
    """
    target = None if to is None else parse_destination(to, metrics, alias, force_reason, replace)
    fields = {
        "method": method,
        "parameters": dict(parameters or {}),
        "rank": rank,
        "energy": energy,
        "uniform": uniform,
        "dtype": parse_dtype(dtype),
        "seed": seed,
        "whole_weights": whole_weights,
        "other_base": other_base,
    }
    return _combined(inputs, fields, target, base, registry, progress)


@overload
def stack(
    inputs: Weighted,
    *,
    to: AdapterName | Path | str,
    in_sequence: bool = False,
    per_module_ranks: bool = False,
    dtype: DtypeLike = "float32",
    whole_weights: str | None = None,
    base: BaseLike | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult: ...


@overload
def stack(
    inputs: Weighted,
    *,
    to: None = None,
    in_sequence: bool = False,
    per_module_ranks: bool = False,
    dtype: DtypeLike = "float32",
    whole_weights: str | None = None,
    base: BaseLike | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> CombinePlan: ...


@python_errors
def stack(
    inputs: Weighted,
    *,
    to: AdapterName | Path | str | None = None,
    in_sequence: bool = False,
    per_module_ranks: bool = False,
    dtype: DtypeLike = "float32",
    whole_weights: str | None = None,
    base: BaseLike | None = None,
    other_base: bool = False,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    force_reason: str | None = None,
    replace: bool = False,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> DerivedResult | CombinePlan:
    """Stacks adapters of one base into one LoRA that acts like all of them together.

    The result is exactly the weighted sum of their updates: the factors are put side by side, and a module's
    rank is the sum of its ranks in the inputs.

        adaptry.stack({"acme/tone@prod": 1, "acme/facts": 0.5}, to="acme/both", registry=registry)

    Args:
        inputs: Adapters, or a mapping from adapters to their weights, as in `combine`.
        to: A name in the registry, or a folder. None: nothing is written, and the plan is returned.
        in_sequence: Each adapter was trained on top of the base and the adapters before it.
        per_module_ranks: Each module keeps its own rank (smaller; not for every engine). Otherwise all
            modules get one rank, padded with zeros.
        dtype: The dtype of the factors.
        whole_weights, base, other_base: As in `combine`.
        metrics, alias, force_reason: As in `push`, for the resulting version.
        replace: Replaces an adapter in the folder `to`.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Raises:
        As in `combine`.
    """
    target = None if to is None else parse_destination(to, metrics, alias, force_reason, replace)
    fields = {
        "uniform": not per_module_ranks,
        "in_sequence": in_sequence,
        "dtype": parse_dtype(dtype),
        "whole_weights": whole_weights,
        "other_base": other_base,
    }
    return _combined(inputs, fields, target, base, registry, progress)


def _combined(
    inputs: Weighted,
    fields: dict[str, Any],
    target: Destination | None,
    base: BaseLike | None,
    registry: RegistryLike | None,
    progress: ShowProgress,
) -> DerivedResult | CombinePlan:
    """(`Any`: as the recipe checks them.)"""
    from adaptry.compute.combining.combine import build_combined_adapter
    from adaptry.compute.combining.plan import plan_combination
    from adaptry.compute.recipes.combine import CombineRecipe
    from adaptry.operations.combine_sources import open_parents
    from adaptry.operations.derived_output import write_result

    named = parse_inputs(inputs)
    recipe = validated(CombineRecipe, inputs=tuple(entry for _, entry in named), **fields)
    with lazily_opened(registry, create=target is not None) as connected, shown_progress(progress) as bars:
        given = None if base is None else parse_base(base)
        sources = [(source, None) for source, _ in named]
        parents = open_parents(connected, sources, given, warn=warn, progress=bars)
        plan = plan_combination(recipe, parents)
        if target is None:
            return plan
        return write_result(
            connected,
            build_combined_adapter(plan),
            target.place,
            options=target.options,
            replace=target.replace,
            progress=bars,
        )
