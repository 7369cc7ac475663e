"""`merge`: adapters merged into their base's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from adaptry.core.display import format_count, html_facts, short_repr
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.validation import validated
from adaptry.facade.arguments import (
    BaseLike,
    DtypeLike,
    Weighted,
    parse_base,
    parse_dtype,
    parse_inputs,
)
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, lazily_opened
from adaptry.facade.warnings import warn

if TYPE_CHECKING:
    from adaptry.compute.merging.plan import MergePlan
    from adaptry.compute.merging.record import MergeRecord


@dataclass(frozen=True, slots=True, repr=False)
class MergeResult:
    """A merged checkpoint: its `folder`, and the `record` of its inputs, which is also written there."""

    folder: Path
    record: MergeRecord

    def __repr__(self) -> str:
        return short_repr(self, str(self.folder), self._counted())

    def _repr_html_(self) -> str:
        record = self.record
        inputs = ", ".join(f"{each.source} × {each.weight:g}" for each in record.inputs)
        facts = [("inputs", inputs), ("base", record.recipe.base), ("weights", self._counted())]
        return html_facts(str(self.folder), facts, (*record.notes, *record.warnings))

    def _counted(self) -> str:
        counted = format_count(self.record.baked, "weight")
        return f"{self.record.changed:,} of {counted} changed"


@overload
def merge(
    inputs: Weighted,
    *,
    base: BaseLike | None = None,
    to: Path | str,
    method: str = "linear",
    parameters: Mapping[str, float | bool | str] | None = None,
    dtype: DtypeLike | None = None,
    seed: int = 0,
    rounding: Literal["float32", "peft"] = "float32",
    max_shard_size: int | None = None,
    other_base: bool = False,
    resize_vocab: bool = False,
    base_copy: Literal["original", "dequantised"] | None = None,
    device: str = "cpu",
    kernel: Literal["auto", "torch", "llvm"] = "auto",
    hashing: bool = True,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> MergeResult: ...


@overload
def merge(
    inputs: Weighted,
    *,
    base: BaseLike | None = None,
    to: None = None,
    method: str = "linear",
    parameters: Mapping[str, float | bool | str] | None = None,
    dtype: DtypeLike | None = None,
    seed: int = 0,
    rounding: Literal["float32", "peft"] = "float32",
    max_shard_size: int | None = None,
    other_base: bool = False,
    resize_vocab: bool = False,
    base_copy: Literal["original", "dequantised"] | None = None,
    device: str = "cpu",
    kernel: Literal["auto", "torch", "llvm"] = "auto",
    hashing: bool = True,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> MergePlan: ...


@python_errors
def merge(
    inputs: Weighted,
    *,
    base: BaseLike | None = None,
    to: Path | str | None = None,
    method: str = "linear",
    parameters: Mapping[str, float | bool | str] | None = None,
    dtype: DtypeLike | None = None,
    seed: int = 0,
    rounding: Literal["float32", "peft"] = "float32",
    max_shard_size: int | None = None,
    other_base: bool = False,
    resize_vocab: bool = False,
    base_copy: Literal["original", "dequantised"] | None = None,
    device: str = "cpu",
    kernel: Literal["auto", "torch", "llvm"] = "auto",
    hashing: bool = True,
    registry: RegistryLike | None = None,
    progress: ShowProgress = True,
) -> MergeResult | MergePlan:
    """Merges adapters into their base's weights, giving a checkpoint that transformers loads.

    W + Σ weight · scale · B·A, computed in float32 and rounded once to the dtype of each weight. Anything
    that does not fit fails before a weight is read; one weight at a time is in memory.

        adaptry.merge("acme/tone@prod", base="./base", to="./merged", registry=registry)
        print(adaptry.merge({"./out": 0.5, "./other": 1.0}, base="./base"))  # the plan

    Args:
        inputs: One adapter, several, or a mapping from adapters to their weights (finite numbers, 1 if not
            given). Each is a folder (a `Path`, or a string such as `./out`), a version, or an open `Adapter`.
        base: The base to merge into: a folder, or a registered base's name or id. None: the adapters' own, if
            it is identified by its content.
        to: The folder to write, which must be empty or absent. None: only returns the plan.
        method: How to combine several adapters: `linear` (the weighted sum), or a method of `combine`.
        parameters: The method's parameters, as in `{"density": 0.3}`.
        dtype: The dtype of all weights. None: each weight keeps its own.
        seed: For methods that draw random numbers.
        rounding: `float32` rounds the sum once; `peft` rounds as PEFT does, after each adapter.
        max_shard_size: The largest weights file, in bytes. None: the base's files stay as they are.
        other_base: Allows merging into a base other than the adapter's own, if the shapes fit.
        resize_vocab: Allows embeddings with more rows than the base's.
        base_copy: Which copy to merge into, if the base or the one trained on is quantised.
        device: Where to compute: `cpu`, `cuda`, `cuda:1`, `mps`.
        kernel: The CPU code to use; the results are the same.
        hashing: Whether the record has the SHA-256 of each written file.
        registry: An open registry, a server's URL, or a folder. None: the configured one, if one is needed.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such folder, version or base.
        CheckFailed: modules or shapes that do not fit, NaN, or updates that are zero or cancel each other.
        Unsupported: a method that cannot be merged.
        Conflict: the folder is not empty.
        Invalid: an unknown method or parameter, or weights that are all 0.
        MissingDependency: torch is not installed.
        Withdrawn, StorageFull, Unauthenticated, Unavailable.
    """
    from adaptry.compute.merging.cancellation import check_cancellation
    from adaptry.compute.merging.merge import MergeOptions, plan_recipe
    from adaptry.compute.merging.merge import merge as merge_recipe
    from adaptry.compute.recipes.merge import MergeRecipe
    from adaptry.operations.known_base import find_common_base
    from adaptry.operations.merge_sources import open_merge

    named = parse_inputs(inputs)
    sources = [source for source, _ in named]
    fields: dict[str, Any] = {  # as the recipe checks them
        "base": "" if base is None else _recipe_base(base),
        "inputs": tuple(entry for _, entry in named),
        "method": method,
        "parameters": dict(parameters or {}),
        "seed": seed,
        "dtype": parse_dtype(dtype),
        "max_shard_size": max_shard_size,
        "other_base": other_base,
        "resize_vocab": resize_vocab,
        "base_copy": base_copy,
        "rounding": rounding,
    }
    recipe = validated(MergeRecipe, **fields)
    with lazily_opened(registry) as connected, shown_progress(progress) as bars:
        if base is None:
            known = find_common_base(connected, sources)
            recipe = recipe.model_copy(update={"base": _recipe_base(known.key)})
        opened = open_merge(connected, recipe, sources, warn=warn, progress=bars)
        if to is None:
            decided = plan_recipe(recipe, opened.checkpoint, opened.sources, opened.base_evidence)
            return check_cancellation(decided)
        target = Path(to).expanduser()
        how = MergeOptions(device, kernel, hashing=hashing)
        record = merge_recipe(
            recipe, opened.checkpoint, opened.sources, target, how, bars, opened.base_evidence
        )
    for warning in record.warnings:
        warn(warning)
    return MergeResult(target, record)


def _recipe_base(base: BaseLike) -> str:
    """The base as recipes name it: an unambiguous path, or the name."""
    named = parse_base(base)
    return str(named.absolute()) if isinstance(named, Path) else named
