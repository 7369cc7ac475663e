"""The record of a merge's inputs and result, which is written into the result as `adaptry_merge.json`.

Inputs are identified by digest, so that the result can be checked and reproduced after names have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from adaptry import __version__
from adaptry.adapters.adapter import Adapter
from adaptry.compute.merging.base_copy import BaseCopy
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.rounding_loss import ROUNDING_REMEDY, ChangedElements, describe_loss
from adaptry.compute.recipes.merge import MergeRecipe
from adaptry.core.digest import Digest
from adaptry.core.display import escape_controls, format_count, short_repr
from adaptry.core.manifest import FileEntry

RECORD_FILE = "adaptry_merge.json"


class MergedInput(BaseModel):
    """An input adapter: the user's name, its weight, and the digests of its weights and config (some tools
    store the config in the weights' file).
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    source: str
    weight: float
    weights: Digest
    config: Digest | None
    revision: Digest | None = None


class MergeRecord(BaseModel):
    """`base` is the base's id (its fingerprint). `files` are the written weight files, if they were hashed.
    `base_copy` is the copy that was merged into, if one is quantised, with the reason. `baked` is the number
    of tensors that adapters change, and `changed` the number of those whose values differ from the base's.
    `elements` is the number of their elements, `changed_elements` the number of those that differ, and
    `lost_to_rounding` the names of the tensors whose update was mostly lost when it was rounded to the
    result's dtype. (None: not counted.)
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    schema_number: int = 1
    recipe: MergeRecipe
    base: Digest
    base_copy: BaseCopy | None = None
    inputs: tuple[MergedInput, ...]
    files: tuple[FileEntry, ...]
    baked: int
    changed: int | None = None
    elements: int | None = None
    changed_elements: int | None = None
    lost_to_rounding: tuple[str, ...] | None = None
    kernels: tuple[str, ...]
    adaptry: str = __version__
    notes: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_unknown_counts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """(`Any`: JSON.)"""
        fields: dict[str, Any] = dump(self)
        for name in ("changed", "elements", "changed_elements", "lost_to_rounding"):
            if getattr(self, name) is None:
                fields.pop(name, None)
        return fields

    def __repr__(self) -> str:
        inputs = " + ".join(each.source for each in self.inputs)
        return short_repr(self, inputs, f"base {self.recipe.base}", f"{self.baked:,} weights")

    def __str__(self) -> str:
        return repr(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the result."""
        if self.changed == 0:
            return (
                "no value changed: the result has the base's weights. The updates are zero, or too small to"
                f" survive rounding to the result's dtype: {ROUNDING_REMEDY}",
            )
        if not self.lost_to_rounding:
            return ()
        elements, changed = self.elements or 0, self.changed_elements or 0
        return (
            f"in {len(self.lost_to_rounding):,} of {format_count(self.baked, 'weight')},"
            f" {describe_loss(ChangedElements(elements, changed, self.lost_to_rounding))}",
        )


def build_merge_record(
    recipe: MergeRecipe,
    plan: MergePlan,
    files: tuple[FileEntry, ...],
    kernels: tuple[str, ...],
    revisions: tuple[Digest | None, ...],
    changed: int | None = None,
    weights: Sequence[Digest] | None = None,
    elements: ChangedElements | None = None,
) -> MergeRecord:
    """Builds the record. `weights`: the adapters' digests; if None, they are computed by reading the
    weights.
    """
    if weights is None:
        weights = [entry.named.weights_digest() for entry in plan.inputs]
    inputs = tuple(
        MergedInput(
            source=escape_controls(entry.label),
            weight=entry.weight,
            weights=digest,
            config=_config_digest(entry.named),
            revision=revision,
        )
        for entry, digest, revision in zip(plan.inputs, weights, revisions, strict=True)
    )
    return MergeRecord(
        recipe=_encodable_recipe(recipe),
        base=plan.base,
        base_copy=plan.base_copy,
        inputs=inputs,
        files=files,
        baked=plan.adapted_count,
        changed=changed,
        elements=elements.elements if elements else None,
        changed_elements=elements.changed if elements else None,
        lost_to_rounding=elements.lost if elements else None,
        kernels=kernels,
        notes=tuple(map(escape_controls, plan.notes)),
    )


def _encodable_recipe(recipe: MergeRecipe) -> MergeRecipe:
    """The recipe, with paths as JSON can hold them: bytes that are not UTF-8 are written as `\\udcff`."""
    inputs = tuple(each.model_copy(update={"source": escape_controls(each.source)}) for each in recipe.inputs)
    return recipe.model_copy(update={"base": escape_controls(recipe.base), "inputs": inputs})


def write_merge_record(record: MergeRecord, folder: Path) -> None:
    (folder / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _config_digest(adapter: Adapter) -> Digest | None:
    config = adapter.format.config
    return Digest.of_chunks(adapter.content.chunks(config)) if config else None
