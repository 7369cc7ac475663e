"""Methods that PEFT cannot use on quantised weights, since it reads them as plain numbers or has no layer for
them.

A LoRA's layers know most of these weights. Other methods mostly use the layer for an `nn.Linear`: those of
bitsandbytes and compressed-tensors are subclasses of it, and a weight of torchao is a tensor in a plain one.
Those of GPTQ and AWQ are neither.
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
from adaptry.checks.binding.quantised_refusals import find_refusals

_CODES = ("I8", "U8", "I32", "U32", "F8_E4M3", "F8_E5M2")


def refused_by_quantised_layers(
    adapter: Adapter, base: BaseRecord, placed: Iterable[TargetTensor]
) -> Iterator[tuple[str, list[str]]]:
    """Why PEFT cannot use an adapter unmerged on a quantised base, as a sentence without a full stop, with
    the paths of its modules.
    """
    quantization = str(base.facts.get("quantization"))
    refused = find_refusals(quantization)
    if adapter.format is not PEFT or refused is None:
        return
    paths = [bare_path(each.module.path) for each in placed if base.tensors[each.tensor].dtype in _CODES]
    method = adapter.spec.method
    if not paths:
        return
    what = f"weights that are quantised ({quantization}){refused.condition}"
    if method in refused.idle:
        yield f"{METHODS[method].title} changes nothing on {what}", paths
    if method in refused.methods:
        yield f"PEFT raises an error for {METHODS[method].title} on {what}", paths
    is_16_bit = not {"BF16", "F16"}.isdisjoint(tensor.dtype for tensor in base.tensors.values())
    if method in refused.in_float32 and is_16_bit:
        yield (
            f"PEFT's layer of {METHODS[method].title} returns float32 on {what}, so a model in 16 bits raises"
            " an error unless it is called under torch.autocast",
            paths,
        )
    if method == "miss" and not refused.has_bat and adapter.config.fields.get("init_weights") == "bat":
        yield f"PEFT raises an error for MiSS with init_weights='bat' on {what}", paths
    if method != "lora" or method in refused.methods:
        return
    variant = lora_variant(adapter.config)
    if variant.is_dora and not refused.has_dora:
        yield f"PEFT raises an error for DoRA on {what}", paths
    if (start := variant.initialisation).startswith(refused.starts):
        yield f"init_lora_weights is {start!a}, which PEFT cannot compute for {what}", paths
