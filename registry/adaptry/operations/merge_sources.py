"""Opens the sources of a merge: the base with its weights, and the adapters to merge."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.bases.quantised import open_logical_view
from adaptry.compute.merging.merge import MergeSource
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress
from adaptry.core.refs import is_folder
from adaptry.operations.base_registry import open_base
from adaptry.operations.quantised_variants import open_original
from adaptry.operations.sources import (
    ParentSource,
    RegistryOpener,
    Warn,
    open_parent,
    with_configured_base,
)


@dataclass(frozen=True, slots=True)
class OpenedMerge:
    """The base, the adapters in the order of the recipe, and the evidence if the base is the original of the
    named one.
    """

    checkpoint: HfCheckpoint
    sources: tuple[MergeSource, ...]
    base_evidence: str


def open_merge(
    connected: RegistryOpener,
    recipe: MergeRecipe,
    inputs: Sequence[ParentSource],
    *,
    warn: Warn,
    progress: Progress,
) -> OpenedMerge:
    """Opens what `recipe` names; `inputs` are its inputs. Raises the errors of `open_parent` and
    `open_base`.
    """
    checkpoint, found = _base(connected, recipe, progress)

    @functools.cache
    def known() -> BaseRecord:
        return fingerprint(checkpoint)

    sources = []
    for entry, source in zip(recipe.inputs, inputs, strict=True):
        label = entry.source if isinstance(source, Path) else None
        parent = open_parent(connected, source, label=label, gguf_base=known, warn=warn, progress=progress)
        own = with_configured_base(parent, recipe.base).base
        weighted = WeightedAdapter(
            parent.adapter, entry.weight, parent.label, own, base_name=parent.base_name
        )
        sources.append(MergeSource(weighted, parent.revision))
    return OpenedMerge(checkpoint, tuple(sources), found)


def _base(connected: RegistryOpener, recipe: MergeRecipe, progress: Progress) -> tuple[HfCheckpoint, str]:
    """The base to merge into, with its weights, and the evidence if it is the original of the named one."""
    base = recipe.base
    checkpoint = open_checkpoint(base) if is_folder(base) else open_base(connected(), base, progress=progress)
    if recipe.base_copy == "original" and open_logical_view(checkpoint).packed:
        return open_original(connected(), checkpoint, progress)
    return checkpoint, ""
