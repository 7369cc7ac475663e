"""Writes a merged model, for engines whose adapter files cannot represent the adapter."""

from __future__ import annotations

from pathlib import Path

from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the checkpoint. Raises the errors of merging, and `CheckFailed` if the base's weights are not on
    this machine.
    """
    checkpoint = options.require_weights(f"merging {parent.label}")
    recipe = MergeRecipe(
        base=options.base_name or str(checkpoint.folder),
        inputs=(RecipeInput(source=parent.label),),
        dtype=options.dtype,
        other_base=options.other_base,
    )
    source = MergeSource(WeightedAdapter(parent.adapter, 1.0, parent.label, parent.base), parent.revision)
    record = merge(recipe, checkpoint, [source], target, progress=options.progress)
    return (*record.warnings, *record.notes)
