"""What went into a merge and what came out, written beside the result: `adaptry_merge.json`.

Inputs are named by digest, so that the result can be checked, and made again, long after the names moved on.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from adaptry import __version__
from adaptry.adapters.adapter import Adapter
from adaptry.compute.merging.base_copy import BaseCopy
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.recipes.merge import MergeRecipe
from adaptry.core.digest import Digest
from adaptry.core.manifest import FileEntry

RECORD_FILE = "adaptry_merge.json"


class MergedInput(BaseModel):
    """An adapter that went in: as named, its weight, the digests of its weights and of its config, which some
    tools have in the weights' file.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    weight: float
    weights: Digest
    config: Digest | None
    revision: Digest | None = None


class MergeRecord(BaseModel):
    """`base` is the base's id (its fingerprint); `files` the weight files written, where they were hashed;
    `base_copy` which copy of the base was merged into, where one is quantised, and why.
    """

    model_config = ConfigDict(frozen=True)

    schema_number: int = 1
    recipe: MergeRecipe
    base: Digest
    base_copy: BaseCopy | None = None
    inputs: tuple[MergedInput, ...]
    files: tuple[FileEntry, ...]
    baked: int
    kernels: tuple[str, ...]
    adaptry: str = __version__
    notes: tuple[str, ...] = ()


def build_merge_record(
    recipe: MergeRecipe,
    plan: MergePlan,
    files: tuple[FileEntry, ...],
    kernels: tuple[str, ...],
    revisions: tuple[Digest | None, ...],
) -> MergeRecord:
    """Reads the adapters' weights once more, to digest them."""
    inputs = tuple(
        MergedInput(
            source=entry.label,
            weight=entry.weight,
            weights=entry.named.weights_digest(),
            config=_config_digest(entry.named),
            revision=revision,
        )
        for entry, revision in zip(plan.inputs, revisions, strict=True)
    )
    return MergeRecord(
        recipe=recipe,
        base=plan.base,
        base_copy=plan.base_copy,
        inputs=inputs,
        files=files,
        baked=plan.adapted_count,
        kernels=kernels,
        notes=plan.notes,
    )


def write_merge_record(record: MergeRecord, folder: Path) -> None:
    (folder / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _config_digest(adapter: Adapter) -> Digest | None:
    config = adapter.format.config
    return Digest.of_chunks(adapter.content.chunks(config)) if config else None
