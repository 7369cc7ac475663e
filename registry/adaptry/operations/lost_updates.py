"""Estimates whether a merge would lose an adapter's updates, if its base's weights are on this machine."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.codes import build_finding
from adaptry.core.errors import AdaptryError
from adaptry.core.report import Finding
from adaptry.operations.local_checkpoints import local_checkpoints


def find_lost_updates(
    adapter: Adapter, base: BaseRecord | None, given: Path | str | None
) -> tuple[Finding, ...]:
    """The finding `lost_in_merge`, if there is one. Empty if the weights of `base` are neither in the folder
    `given` nor in a recorded one, or if the adapter cannot be merged. Reads one block of rows from each of at
    most 128 weights.
    """
    checkpoint = next(local_checkpoints(base, given), None) if base else None
    if checkpoint is None:
        return ()
    from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
    from adaptry.compute.merging.plan import plan_merge
    from adaptry.compute.merging.sampled_changes import sample_changes
    from adaptry.compute.merging.weighted_adapter import WeightedAdapter

    try:
        found = sample_changes(plan_merge(checkpoint, [WeightedAdapter(adapter, 1.0, "the adapter")]))
    except AdaptryError:
        return ()  # other findings, or the merge, give the reason
    if not found.lost:
        return ()
    reason = (
        f"a merge would change {found.changed:,} of {found.elements:,} sampled elements, and lose most of the"
        f" updates of {shorten_names(fold_layer_numbers(found.lost))}"
    )
    return (build_finding("lost_in_merge", reason),)
