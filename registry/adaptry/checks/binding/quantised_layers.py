"""Methods that PEFT cannot use on weights that bitsandbytes quantised, since it reads them as plain numbers.

A LoRA's layers know these weights. Most other methods use the layer for an `nn.Linear`, since the layers of
bitsandbytes are subclasses of it. Observed with PEFT 0.21 and bitsandbytes 0.50, for weights in 4 and 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.lora_config import lora_variant
from adaptry.bases.module_map import TargetTensor
from adaptry.checks.binding.loaded_model import bare_path

_REFUSED = frozenset(["adamss", "delora", "frod", "glora", "osf", "psoft", "tinylora"])
_REFUSED_IN_4_BIT = frozenset(["deft", "hra", "loha", "lokr", "peanut", "supertuning"])
"""These read the shape of a weight, which 4-bit codes do not have."""
_REFUSED_IN_8_BIT = frozenset(["supertuning"])
_REFUSED_STARTS = ("mica", "orthogonal", "pissa")
_CODES = ("I8", "U8")


def refused_by_quantised_layers(
    adapter: Adapter, base: BaseRecord, placed: Iterable[TargetTensor]
) -> Iterator[tuple[str, list[str]]]:
    """Why PEFT cannot use an adapter unmerged on a base that bitsandbytes quantised, as a sentence without a
    full stop, with the paths of its modules.
    """
    _, _, kind = str(base.facts.get("quantization")).partition(" ")
    if adapter.format is not PEFT:
        return
    paths = [bare_path(each.module.path) for each in placed if base.tensors[each.tensor].dtype in _CODES]
    method = adapter.spec.method
    if not paths:
        return
    what = f"weights that bitsandbytes quantised ({kind})"
    if method == "unilora":
        yield f"PEFT rounds Uni-LoRA's scales to whole numbers, so it changes nothing on {what}", paths
    refused = _REFUSED | (_REFUSED_IN_4_BIT if kind.endswith("4-bit") else _REFUSED_IN_8_BIT)
    if method in refused:
        yield f"PEFT raises an error for {METHODS[method].title} on {what}", paths
    if method == "lora" and (start := lora_variant(adapter.config).initialisation).startswith(
        _REFUSED_STARTS
    ):
        yield f"init_lora_weights is {start!a}, which PEFT cannot compute for {what}", paths
