"""How each tool stores a quantised weight: the names and shapes that identify it, and its shape in the model.

A rule examines a tensor and its siblings, and returns the packed weight or None. Sources: transformers'
`quantizers/`, AutoGPTQ, AutoAWQ, compressed-tensors, and the checkpoints that they write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from adaptry.adapters.header import TensorInfo
from adaptry.bases.conv1d import is_named_conv1d
from adaptry.bases.quantised.four_bit import parse_four_bit_state
from adaptry.bases.quantised.packed_weight import CODES, PackedPart, PackedWeight
from adaptry.core.lazy_dataclass import dataclass

_SCALES = ("weight_scale_inv", "weight_scale")
_BESIDE = (
    "weight_zero_point", "weight_g_idx", "weight_shape", "weight_global_scale", "weight_scale_2",
    "input_scale", "input_global_scale", "input_zero_point",
)  # fmt: skip
_EIGHT_BITS = {"F8_E4M3": "fp8", "F8_E5M2": "fp8", "I8": "compressed-tensors"}
_PER_BLOCK = 32  # MXFP4: values per scale


@dataclass(frozen=True, slots=True)
class CheckpointTensors:
    """A checkpoint's tensors for rules. `read` returns the bytes of a small tensor. (`Any`: its config.)"""

    tensors: Mapping[str, TensorInfo]
    shard_of: Mapping[str, str]
    config: Mapping[str, Any]
    read: Callable[[str], bytes]

    def parts(self, codes: str, stem: str, ends: tuple[str, ...]) -> dict[str, PackedPart]:
        """`codes`, and its siblings with these endings."""
        names = {CODES: codes} | {end: f"{stem}.{end}" for end in ends if f"{stem}.{end}" in self.tensors}
        return {role: self._part(name) for role, name in names.items()}

    def _part(self, name: str) -> PackedPart:
        return PackedPart(name, self.shard_of[name], self.tensors[name])

    def is_transposed(self, stem: str) -> bool:
        """Whether the weight belongs to a Conv1D, which bitsandbytes packs transposed."""
        return is_named_conv1d(stem, str(self.config.get("model_type")))


def bitsandbytes_four_bit(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` of n/2 bytes, `weight.absmax`, `weight.quant_map` and the rest as JSON (bitsandbytes)."""
    stem, mark, kind = name.rpartition(".quant_state.bitsandbytes__")
    if not mark or kind not in ("nf4", "fp4") or stem not in files.tensors:
        return None
    ends = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", f"quant_state.bitsandbytes__{kind}")
    parts = files.parts(stem, stem, ends)
    state = parse_four_bit_state(files.read(name), parts)
    if state is None:
        return None
    shape, four_bit = state
    is_transposed = files.is_transposed(stem.removesuffix(".weight"))
    return PackedWeight(
        stem,
        f"bitsandbytes {kind}",
        4,
        shape[::-1] if is_transposed else shape,
        parts,
        four_bit,
        is_transposed,
    )


def bitsandbytes_eight_bit(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` in I8 [out, in], with a scale per row, `SCB`."""
    stem, mark, _ = name.rpartition(".SCB")
    codes = files.tensors.get(f"{stem}.weight")
    if not mark or codes is None or codes.dtype != "I8" or len(codes.shape) != 2:
        return None
    scales = files.tensors[name]
    if (scales.dtype, scales.shape) != ("F32", codes.shape[:1]):
        return None
    parts = files.parts(f"{stem}.weight", stem, ("SCB", "weight_format"))
    is_transposed = files.is_transposed(stem)
    shape = codes.shape[::-1] if is_transposed else codes.shape
    return PackedWeight(f"{stem}.weight", "bitsandbytes int8", 8, shape, parts, is_transposed=is_transposed)


def gptq_or_awq(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`qweight` in I32 with `scales` [groups, out]: GPTQ packs along the inputs, AWQ along the outputs."""
    stem, mark, _ = name.rpartition(".qweight")
    codes, scales = files.tensors[name], files.tensors.get(f"{stem}.scales")
    if not mark or scales is None or len(codes.shape) != 2 or len(scales.shape) != 2 or 0 in codes.shape:
        return None
    parts = files.parts(name, stem, ("scales", "qzeros", "g_idx"))
    rows, columns = codes.shape
    out = scales.shape[1]
    if columns != out:
        return PackedWeight(f"{stem}.weight", "awq", 32 * columns // max(1, out), (out, rows), parts)
    bits = _bits(files.config)
    if "g_idx" in parts and parts["g_idx"].info.numel:
        inputs = parts["g_idx"].info.numel
        bits = 32 * rows // inputs
    elif bits:
        inputs = 32 * rows // bits
    else:
        return None
    return PackedWeight(f"{stem}.weight", "gptq", bits, (out, inputs), parts)


def compressed_tensors(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight_packed`: I32 with its shape in another tensor, or two 4-bit floats per byte (NVFP4)."""
    stem, mark, _ = name.rpartition(".weight_packed")
    codes = files.tensors[name]
    if not mark or len(codes.shape) != 2:
        return None
    parts = files.parts(name, stem, (*_SCALES, *_BESIDE))
    if codes.dtype == "U8":
        shape = (codes.shape[0], 2 * codes.shape[1])
        return PackedWeight(f"{stem}.weight", "compressed-tensors", 4, shape, parts)
    stored = parts.get("weight_shape")
    if stored is None or stored.info.dtype not in ("I64", "I32") or stored.info.numel != 2:
        return None
    data = files.read(stored.name)
    half = len(data) // 2
    outputs, inputs = (int.from_bytes(data[at : at + half], "little", signed=True) for at in (0, half))
    if outputs != codes.shape[0] or inputs <= 0:
        return None
    bits = 32 * codes.shape[1] // inputs
    return PackedWeight(f"{stem}.weight", "compressed-tensors", bits, (outputs, inputs), parts)


def scaled_eight_bit(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` in eight bits and its own shape, with a scale: FP8 (DeepSeek, compressed-tensors) or
    integers.
    """
    stem, mark, _ = name.rpartition(".weight")
    codes = files.tensors[name]
    if not mark or codes.dtype not in _EIGHT_BITS:
        return None
    parts = files.parts(name, stem, (*_SCALES, *_BESIDE))
    if not set(_SCALES) & parts.keys():
        return None
    return PackedWeight(name, _EIGHT_BITS[codes.dtype], 8, codes.shape, parts)


def mxfp4(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`…_blocks` [experts, out, in/32, 16] and `…_scales`, of gpt-oss: in memory [experts, in, out]."""
    stem, mark, _ = name.rpartition("_blocks")
    codes, scales = files.tensors[name], files.tensors.get(f"{stem}_scales")
    if not mark or scales is None or len(codes.shape) != 4 or codes.shape[:3] != scales.shape:
        return None
    experts, outputs, blocks, _ = codes.shape
    scale = PackedPart(f"{stem}_scales", files.shard_of[f"{stem}_scales"], scales)
    parts = {**files.parts(name, stem, ()), "scales": scale}
    return PackedWeight(stem, "mxfp4", 4, (experts, _PER_BLOCK * blocks, outputs), parts)


LAYOUTS: tuple[Callable[[str, CheckpointTensors], PackedWeight | None], ...] = (
    bitsandbytes_four_bit,
    bitsandbytes_eight_bit,
    gptq_or_awq,
    compressed_tensors,
    scaled_eight_bit,
    mxfp4,
)


def has_all_codes(packed: PackedWeight) -> bool:
    """Whether there are as many codes as the shape needs; otherwise the header is wrong."""
    needed = math.ceil(math.prod(packed.shape) * packed.bits / 8)
    return needed <= packed.codes.info.size <= needed + needed // 8 + 64  # rows may be padded to words


def _bits(config: Mapping[str, Any]) -> int:
    """The bits in a GPTQ config; 0 if it has no number that can be packed. (`Any`: the model's config.)"""
    written = config.get("quantization_config")
    bits = written.get("bits") if isinstance(written, dict) else None
    return bits if bits in (2, 3, 4, 8) else 0
