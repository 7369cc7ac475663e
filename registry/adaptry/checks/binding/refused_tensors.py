"""A method's own tensors that PEFT cannot load because of their shape or dtype. Observed in PEFT 0.21."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.checks.binding.loaded_model import LoadedModel
from adaptry.checks.binding.shadow_shapes import unlike_base_layers


def refused_tensors(model: LoadedModel) -> Iterator[str]:
    """A sentence for each reason, without a full stop."""
    if model.adapter.spec.method == "shadow":
        yield from unlike_base_layers(model)
    else:
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
