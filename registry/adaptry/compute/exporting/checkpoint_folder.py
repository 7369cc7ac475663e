"""A merged model: the adapter in its base's weights, for engines that cannot say it otherwise."""

from __future__ import annotations

from pathlib import Path

from adaptry.compute.exporting.options import Setting
from adaptry.compute.lazy_adapters.lazy_adapter import Parent
from adaptry.compute.merging.fitting import Weighted
from adaptry.compute.merging.merge import Source, merge
from adaptry.compute.recipes.merge import Input, Recipe


def write(parent: Parent, target: Path, setting: Setting) -> tuple[str, ...]:
    """Raises what merging raises, and `Refused` where the base's weights are not at hand."""
    checkpoint = setting.weights(f"merging {parent.label}")
    recipe = Recipe(
        base=setting.base_name or str(checkpoint.folder),
        inputs=(Input(source=parent.label),),
        dtype=setting.dtype,
        other_base=setting.other_base,
    )
    source = Source(Weighted(parent.adapter, 1.0, parent.label, parent.base), parent.revision)
    return merge(recipe, checkpoint, [source], target, progress=setting.progress).notes
