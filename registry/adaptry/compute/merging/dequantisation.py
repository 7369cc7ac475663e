"""Dequantises weights with the arithmetic of bitsandbytes, one tensor at a time.

The result equals `dequantize_4bit` and `int8_vectorwise_dequant` of bitsandbytes 0.50, bit for bit: the
code's value times its block's scale in float32, rounded once to the original dtype; int8 stays in float32.
Blocks continue across rows, as they did when the weight was quantised. (The AVX-512 kernel of bitsandbytes
starts a new block in each row, which is wrong if a row is not a multiple of a block; in that case the result
equals that of its other backends.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.adapters.header import TensorInfo
from adaptry.adapters.methods.row_change import RowChange
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised import LogicalView, PackedWeight
from adaptry.compute.merging.whole_changes import StoredWeight, StreamedChange
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.merging.lora_delta import LoraDelta
    from adaptry.compute.tensors.adapter_tensors import ReadBias

_PER_INT8 = 7.874015718698502e-3  # 1/127, as bitsandbytes and PEFT write it
_STEP = 1 << 18  # values at a time: a multiple of all block sizes that fits into a core's cache
_CONFIGS = ("text_config", "vision_config", "llm_config")


def dequantised_view(view: LogicalView, int8_dtype: str) -> HfCheckpoint:
    """The checkpoint as if it were dequantised: shapes and dtypes of the result, with the positions of the
    codes in files.

    Four-bit weights get the dtype that they were quantised from, eight-bit ones `int8_dtype` (as in
    safetensors).
    """
    tensors = dict(view.checkpoint.tensors)
    for name, packed in view.packed.items():
        dtype = packed.four_bit.dtype if packed.four_bit else int8_dtype
        tensors[name] = replace(tensors[name], dtype=dtype)
    config = {
        key: _without(value) if key in _CONFIGS and isinstance(value, dict) else value
        for key, value in _without(view.checkpoint.config).items()
    }
    return replace(view.checkpoint, tensors=tensors, config=config)


def dequantise(packed: PackedWeight, read: Callable[[str, TensorInfo], Tensor]) -> Tensor:
    """The weight in `packed.shape`, in the dtype that it was quantised from (int8: float32).

    `read(shard, info)` returns a tensor on disk.
    """
    parts = {
        role: read(part.shard, part.info) for role, part in packed.parts.items() if "quant_state" not in role
    }
    flat = _from_four_bit(packed, parts) if packed.four_bit else _from_int8(parts)
    return flat.view(packed.shape[::-1]).t().contiguous() if packed.is_transposed else flat.view(packed.shape)


@dataclass(frozen=True, slots=True)
class SummedLoras:
    """Plain LoRAs on one weight, whose updates are summed in float32 before a single rounding."""

    updates: tuple[LoraDelta, ...]
    is_transposed: bool
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        wide = stored.float()
        for update in self.updates:
            wide = StreamedChange(update, self.is_transposed).apply(wide, read_bias)
        return wide.to(stored.dtype)

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        return None  # the quantised weight is in memory as a whole


def _from_four_bit(packed: PackedWeight, parts: Mapping[str, Tensor]) -> Tensor:
    """bitsandbytes' `_dequantize_4bit_compute`: the high half of a byte comes first."""
    import torch

    from adaptry.compute.tensors.adapter_tensors import DTYPES

    state = packed.four_bit
    assert state is not None, "only called for four-bit weights"
    codes = parts["codes"].reshape(-1).view(torch.uint8)
    scales = parts["absmax"].reshape(-1)
    if state.is_nested:
        table, outer = parts["nested_quant_map"], parts["nested_absmax"].reshape(-1)
        scales = _scaled(table[scales.int()], outer, state.nested_blocksize) + state.nested_offset
    both = torch.arange(256)
    pairs = torch.stack([parts["quant_map"][both >> 4], parts["quant_map"][both & 0xF]], dim=1)
    result = torch.empty(math.prod(packed.shape), dtype=DTYPES[state.dtype])
    for start in range(0, result.numel(), _STEP):
        end = min(start + _STEP, result.numel())
        values = pairs.index_select(0, codes[start // 2 : (end + 1) // 2].int()).view(-1)
        result[start:end] = _scaled(
            values[: end - start], scales[start // state.blocksize :], state.blocksize
        )
    return result


def _from_int8(parts: Mapping[str, Tensor]) -> Tensor:
    scaled: Tensor = parts["codes"] * parts["SCB"].view(-1, 1) * _PER_INT8
    return scaled.reshape(-1)


def _scaled(values: Tensor, scales: Tensor, block: int) -> Tensor:
    """Each block of `values` [n] times its scale; the last block may be short. Works in place."""
    whole = values.numel() // block
    values[: whole * block].view(-1, block).mul_(scales[:whole].view(-1, 1))
    if whole * block < values.numel():
        values[whole * block :].mul_(scales[whole])
    return values


def _without(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key != "quantization_config"}
