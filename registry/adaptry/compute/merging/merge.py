"""Merges adapters into a base, as a checkpoint folder that appears complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

# The first two would otherwise be imported by a thread of `check_inputs`: see `compile_ahead`.
from adaptry.adapters.inspection import plain_norms, tensor_measurement  # noqa: F401
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.output_folder import output_folder, require_free
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.checks.weights import check_weights
from adaptry.compute.merging.cancellation import check_cancellation
from adaptry.compute.merging.combined_changes import MethodChoice
from adaptry.compute.merging.execute import write_merged_weights
from adaptry.compute.merging.kernels import choose_kernels, compile_ahead
from adaptry.compute.merging.model_files import write_side_files
from adaptry.compute.merging.plan import MergePlan, plan_merge
from adaptry.compute.merging.record import MergeRecord, build_merge_record, write_merge_record
from adaptry.compute.merging.rounding_loss import ChangedElements
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import Progress, no_progress
from adaptry.core.report import CheckReport

_MIN_FACTOR_BYTES = 64 << 20  # bytes of factors for which another inspecting process pays off


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """Options of a merge that do not change its result.

    `device`: as in torch (`cpu`, `cuda`, …). `kernel`: auto, torch or llvm. `hashing`: compute digests of the
    files while they are written. `threads`: None for one per core.
    """

    device: str = "cpu"
    kernel: str = "auto"
    hashing: bool = True
    threads: int | None = None


_DEFAULTS = MergeOptions()


@dataclass(frozen=True, slots=True)
class MergeSource:
    """An opened input of the recipe. `revision` is its digest, if a registry has it."""

    weighted: WeightedAdapter
    revision: Digest | None = None


def merge(
    recipe: MergeRecipe,
    checkpoint: HfCheckpoint,
    sources: Sequence[MergeSource],
    target: Path,
    options: MergeOptions = _DEFAULTS,
    progress: Progress = no_progress,
    base_evidence: str = "",
) -> MergeRecord:
    """Writes the merged checkpoint to `target`, including `adaptry_merge.json`.

    `base_evidence` is as in `plan_recipe`. Nothing is written unless everything fits. Raises the errors of
    `plan_merge`, `MissingDependency` (no torch), `Conflict` (something is at `target`), `InvalidWeights` (a
    file that became shorter since), `Invalid` (one that changed since), `CheckFailed` (values that became
    infinite or NaN), `StorageFull`, `Unavailable`.
    """
    _check_new(target)
    entries = [source.weighted for source in sources]
    with ThreadPoolExecutor(3) as pool:  # planning leaves the other cores idle
        checked = pool.submit(check_inputs, entries)
        digests = pool.submit(lambda: [entry.named.weights_digest() for entry in entries])
        compile_ahead(pool, checkpoint, options.device, options.kernel)
        decided = check_cancellation(plan_recipe(recipe, checkpoint, sources, base_evidence))
        kernels = choose_kernels(options.device, options.kernel)
        kernels.check(decided.changed_tensors)
        kernels.prepare(decided.changed_tensors)
        checked.result()
        weights = digests.result()
    with output_folder(target, sources=[checkpoint, *(entry.named.content for entry in entries)]) as folder:
        written = write_merged_weights(
            decided, folder, kernels, hashing=options.hashing, threads=options.threads, progress=progress
        )
        write_side_files(decided, folder)
        files = tuple(
            FileEntry(path=file.name, size=file.size, sha256=file.sha256) for file in written if file.sha256
        )
        revisions = tuple(source.revision for source in sources)
        changed = sum(file.changed for file in written)
        elements = sum((file.elements for file in written), ChangedElements())
        made = build_merge_record(
            recipe, decided, files, kernels.names, revisions, changed, weights, elements
        )
        write_merge_record(made, folder)
    return made


def plan_recipe(
    recipe: MergeRecipe, checkpoint: HfCheckpoint, sources: Sequence[MergeSource], base_evidence: str = ""
) -> MergePlan:
    """The plan of a recipe whose base and inputs are open. `base_evidence` is the evidence that this base is
    the original of the base that the recipe names, if there is any
    (`adaptry.operations.quantised_variants.open_original`).
    """
    return plan_merge(
        checkpoint,
        [source.weighted for source in sources],
        dtype=recipe.dtype,
        max_shard_size=recipe.max_shard_size,
        other_base=recipe.other_base,
        resize_vocab=recipe.resize_vocab,
        base_copy=recipe.base_copy,
        rounding=recipe.rounding,
        base_evidence=base_evidence,
        method=None
        if recipe.method == "linear"
        else MethodChoice(recipe.method, recipe.parameters, recipe.seed),
    )


def check_inputs(entries: Sequence[WeightedAdapter]) -> None:
    """Raises the `CheckFailed` of the first input whose factors have a NaN or are all zero.

    Factors are small compared with a base, so this is cheap, and a NaN would spread through the model. All
    inputs share one inspecting process, because starting one takes as long as reading 50 MB; large inputs
    share one process per core.
    """
    size = sum(entry.adapter.content.sizes[entry.adapter.format.weights] for entry in entries)
    threads = max(1, min(len(entries), size // _MIN_FACTOR_BYTES, os.cpu_count() or 1))
    with closing(Inspector(threads)) as inspector, ThreadPoolExecutor(threads) as pool:
        numbered = enumerate(entries)
        for _ in pool.map(lambda one: _check_values(one[1], inspector, f"input {one[0]}"), numbered):
            pass


def _check_values(entry: WeightedAdapter, inspector: Inspector, tenant: str) -> None:
    findings = check_weights(entry.adapter, inspector, tenant)
    # Whether large updates overflow depends on the result's dtype and weights; it is checked there.
    report = CheckReport(findings=tuple(each for each in findings if each.code != "updates_overflow"))
    if report.is_blocked:
        raise CheckFailed(f"{entry.label}: {report.sentence()}")
    for found in report.findings:
        if found.code == "untrained":
            raise CheckFailed(
                f"{entry.label}: {found.reason}, so the result would be the base [{found.code}]"
            )


def _check_new(target: Path) -> None:
    """Raises `Conflict` if the target exists: a merge never replaces a model, since someone may be loading
    it.
    """
    if target.is_dir() and any(target.iterdir()):
        raise Conflict(f"{target} exists and is not empty; choose another place, or remove it first")
    require_free(target)
