"""Whether a job can measure the updates of an adapter, from its headers and config alone."""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.adapters.spec import ModuleSpec

_WITHOUT_BASE = "and the registry does not know its base"


def unmeasurable_reason(adapter: Adapter, *, is_base_known: bool) -> str | None:
    """Why the adapter cannot be measured, as a predicate that follows its label; None if it can be."""
    spec = adapter.spec
    if adapter.format is not PEFT:
        return f"is in the layout of {adapter.format.tool}"
    if (reason := plain_reason(adapter)) is None:
        return None
    method = METHODS.get(spec.method)
    if method is None:
        return f"is {spec.method}, which is not supported here"
    if method.weight is None or method.unmergeable_reason(adapter.config):
        return f"is {method.title}, whose effect is not a fixed change of the weights"
    if "layer_replication" in spec.traits:
        return "renumbers the layers of its base (layer_replication)"
    if is_base_known:
        return None
    if method.needs_base_for(adapter.config):
        if spec.method == "lora":
            return f"{reason}, {_WITHOUT_BASE}"
        return f"is {method.title}, whose update depends on the base's weights, {_WITHOUT_BASE}"
    if not all(map(_shows_shape, spec.modules)):
        return f"has tensors that do not determine the shapes of the weights, {_WITHOUT_BASE}"
    return None


def _shows_shape(module: ModuleSpec) -> bool:
    return bool(module.fan_in and module.fan_out) and module.kind in ("linear", "flat", "embedding")
