"""Tensors of a method that PEFT 0.21 cannot load because of their number, shape or dtype."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.binding.shadow_shapes import unlike_base_layers
from adaptry.checks.finding_text import format_count


def refused_tensors(model: LoadedModel) -> Iterator[str]:
    """A sentence for each reason, without a full stop."""
    match model.adapter.spec.method:
        case "shadow":
            yield from unlike_base_layers(model)
        case "tinylora":
            yield from _shared_vectors(model)
        case "vblora":
            yield from _weights_of_top_vectors(model.adapter)


def _weights_of_top_vectors(adapter: Adapter) -> Iterator[str]:
    """PEFT writes these weights of a VB-LoRA into a new float32 tensor with `scatter`, which does not cast
    (`utils/save_and_load.py`).
    """
    if not adapter.config.flag("save_only_topk_weights"):
        return
    dtypes = {info.dtype for name, info in adapter.tensors.items() if name.endswith("_topk_weights")}
    for dtype in sorted(dtypes - {"F32"}):
        yield f"PEFT loads the weights of the top vectors only from F32, but the file has them as {dtype}"


def _shared_vectors(model: LoadedModel) -> Iterator[str]:
    """TinyLoRA divides the modules into as many groups as `weight_tying` gives; each shares a vector."""
    config, spec = model.adapter.config, model.adapter.spec
    count = sum(model.reason_not_adapted(path) is None for path in model.names.holders_of("weight", 2))
    expected = max(1, round(count * (1.0 - config.number("weight_tying", 0.0))))
    held = sum(role.startswith("v.") for role in spec.shared)
    if held != expected:
        modules, vectors = format_count(count, "module"), format_count(expected, "vector")
        yield f"weight_tying gives {vectors} for {modules}, but the file has {held:,}"
