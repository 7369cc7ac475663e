"""Compares the copy of an embedding, which PEFT saves next to an update of it, with the base's embedding.

PEFT loads the copy, and adds the update to it. Training leaves the copy equal to the base's embedding. Other
values come from another model, or from one that was saved while the adapter was merged; its update is then
applied twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.bases.module_map import ExtraTarget
from adaptry.checks.base.copied_weights import compare_with_base
from adaptry.checks.binding import bind
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import shorten_names
from adaptry.core.report import Finding

_COPY = ".base_layer."


def check_copies(adapter: Adapter, base: BaseRecord | None) -> Iterator[Finding]:
    """A finding if a copy differs from the base's weight at the positions of its record. Copies of another
    shape have other findings. Methods that move a part of the base's weight into the update change the copy.
    """
    spec = adapter.spec
    if base is None or adapter.format is not PEFT or not any(_COPY in extra.tensor for extra in spec.extras):
        return
    method = METHODS.get(spec.method)
    if method is None or method.is_relative(spec.traits):
        return
    adapted = {f"{module.path}.weight" for module in spec.modules}
    changed = [
        extra.extra.target
        for extra in bind(adapter, base).module_map.extras
        if extra.extra.target in adapted and _is_changed(adapter, extra, base)
    ]
    if changed:
        reason = f"{shorten_names(changed)} in the file has values that differ from the base's"
        yield build_finding("saved_copy_differs", reason, changed)


def _is_changed(adapter: Adapter, extra: ExtraTarget, base: BaseRecord) -> bool:
    return _COPY in extra.extra.tensor and compare_with_base(adapter, extra, base) == "different"
