"""How each tool stores a quantised weight: the names and shapes that identify it, and its shape in the model.

A rule examines a tensor and its siblings, and returns the packed weight or None. Sources: transformers'
`quantizers/`, AutoGPTQ, AutoAWQ, compressed-tensors, torchao, HQQ, MLX and ModelOpt, and the checkpoints that
they write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from adaptry.adapters.header import TensorInfo
from adaptry.bases.conv1d import is_named_conv1d
from adaptry.bases.quantised.four_bit import parse_four_bit_state
from adaptry.bases.quantised.packed_weight import CODES, PackedPart, PackedWeight
from adaptry.bases.quantised.torchao_state import shape_of_torchao
from adaptry.core.lazy_dataclass import dataclass

_SCALES = ("weight_scale_inv", "weight_scale")
_BESIDE = (
    "weight_zero_point", "weight_g_idx", "weight_shape", "weight_global_scale", "weight_scale_2",
    "input_scale", "input_global_scale", "input_zero_point",
)  # fmt: skip
_EIGHT_BITS = {"F8_E4M3": "fp8", "F8_E5M2": "fp8", "I8": "compressed-tensors"}
_PER_BLOCK = 32  # MXFP4: values per scale
_PER_SCALE = 16  # NVFP4: values per scale
_TORCHAO = "_qdata"
_TORCHAO_PARTS = (
    "scale", "zero_point", "scale_and_zero", "per_tensor_scale", "act_per_tensor_scale", "act_pre_scale",
    "act_quant_scale", "act_quant_zero_point",
)  # fmt: skip
_HQQ_PARTS = (
    "scale", "zero", "shape", "nbits", "group_size", "axis", "packing", "unpack_view_dtype", "view_as_float",
    "compute_dtype", "quant_scale", "quant_zero", "offload_meta", "encoded_state_dict",
    "stores_quant_config", "channel_wise", "optimize", "round_zero",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckpointTensors:
    """A checkpoint's tensors for rules. `read` returns the bytes of a small tensor, `metadata` an entry of a
    file's metadata. (`Any`: the model's config.)
    """

    tensors: Mapping[str, TensorInfo]
    shard_of: Mapping[str, str]
    config: Mapping[str, Any]
    read: Callable[[str], bytes]
    metadata: Callable[[str, str], str | None] = lambda shard, name: None

    def parts(self, codes: str, stem: str, ends: tuple[str, ...]) -> dict[str, PackedPart]:
        """`codes`, and its siblings with these endings."""
        names = {CODES: codes} | {end: f"{stem}.{end}" for end in ends if f"{stem}.{end}" in self.tensors}
        return {role: self.part(name) for role, name in names.items()}

    def part(self, name: str) -> PackedPart:
        return PackedPart(name, self.shard_of[name], self.tensors[name])

    def is_transposed(self, stem: str) -> bool:
        """Whether it is a Conv1D, which quantisers pack transposed."""
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
    """`qweight` in I32 with `scales` [groups, out]: GPTQ packs along the inputs, AWQ along the outputs. GPTQ
    packs a Conv1D as if it were linear.
    """
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
    shape = (inputs, out) if files.is_transposed(stem) else (out, inputs)
    return PackedWeight(f"{stem}.weight", "gptq", bits, shape, parts)


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
    sides = _stored_sides(parts.get("weight_shape"), files)
    if sides is None or sides[0] != codes.shape[0]:
        return None
    bits = 32 * codes.shape[1] // sides[1]
    return PackedWeight(f"{stem}.weight", "compressed-tensors", bits, sides, parts)


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
    method = _EIGHT_BITS[codes.dtype]
    if method == "fp8" and _method(files.config) == "compressed-tensors":
        method = "compressed-tensors fp8"
    return PackedWeight(name, method, 8, codes.shape, parts)


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


def fused_eight_bit(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """Fused experts in eight bits and their own shape, with `…_scale_inv` or `…_scale` (transformers 5)."""
    codes = files.tensors[name]
    if codes.dtype not in _EIGHT_BITS or len(codes.shape) != 3:
        return None
    ends = [end for end in ("scale_inv", "scale") if f"{name}_{end}" in files.tensors]
    parts = files.parts(name, name, ()) | {end: files.part(f"{name}_{end}") for end in ends}
    return PackedWeight(name, _EIGHT_BITS[codes.dtype], 8, codes.shape, parts) if ends else None


def modelopt_four_bit(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` in U8 [out, in/2], with a float scale for 16 values and one for all, `weight_scale_2`."""
    stem, mark, _ = name.rpartition(".weight")
    codes, scales = files.tensors[name], files.tensors.get(f"{stem}.weight_scale")
    if not mark or codes.dtype != "U8" or scales is None or f"{stem}.weight_scale_2" not in files.tensors:
        return None
    shape = (*codes.shape[:-1], 2 * codes.shape[-1])
    if scales.dtype != "F8_E4M3" or scales.numel * _PER_SCALE != math.prod(shape):
        return None
    return PackedWeight(name, "nvfp4", 4, shape, files.parts(name, stem, (*_SCALES, *_BESIDE)))


def bitnet(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` in U8 [out/4, in], with one scale (transformers' BitNet)."""
    stem, mark, _ = name.rpartition(".weight")
    codes, scale = files.tensors[name], files.tensors.get(f"{stem}.weight_scale")
    is_packed = codes.dtype == "U8" and len(codes.shape) == 2 and _method(files.config) == "bitnet"
    if not mark or not is_packed or scale is None or scale.numel != 1:
        return None
    shape = (4 * codes.shape[0], codes.shape[1])
    return PackedWeight(name, "bitnet", 2, shape, files.parts(name, stem, ("weight_scale",)))


def eetq(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` in I8 [in, out], with a scale per output, `weight_scales`."""
    stem, mark, _ = name.rpartition(".weight")
    codes, scales = files.tensors[name], files.tensors.get(f"{stem}.weight_scales")
    if not mark or codes.dtype != "I8" or scales is None or scales.shape != codes.shape[1:]:
        return None
    return PackedWeight(name, "eetq", 8, codes.shape[::-1], files.parts(name, stem, ("weight_scales",)))


def mlx(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`weight` in U32 [out, in*bits/32], with `scales` [out, in/group] and, in affine mode, `biases`."""
    stem, mark, _ = name.rpartition(".weight")
    codes, scales = files.tensors[name], files.tensors.get(f"{stem}.scales")
    if not mark or codes.dtype != "U32" or scales is None or scales.shape[:-1] != codes.shape[:-1]:
        return None
    inputs = scales.shape[-1] * _mlx_group(files.config, stem)
    if not inputs:
        return None
    bits = 32 * codes.shape[-1] // inputs
    parts = files.parts(name, stem, ("scales", "biases"))
    return PackedWeight(name, "mlx", bits, (*codes.shape[:-1], inputs), parts)


def hqq(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`W_q`, with its shape in another tensor, and its settings in many more."""
    stem, mark, _ = name.rpartition(".W_q")
    parts = files.parts(name, stem, _HQQ_PARTS)
    shape = _stored_sides(parts.get("shape"), files)
    if not mark or shape is None:
        return None
    bits = 8 * files.tensors[name].size // math.prod(shape)
    return PackedWeight(f"{stem}.weight", "hqq", bits, shape, parts)


def torchao(name: str, files: CheckpointTensors) -> PackedWeight | None:
    """`_weight_qdata`, with the type of the weight, and perhaps its shape, in the file's metadata."""
    stem, _, last = name.rpartition(".")
    if not stem or not last.startswith("_") or not last.endswith(_TORCHAO):
        return None
    own = last.removesuffix(_TORCHAO).removeprefix("_")
    codes = files.tensors[name]
    bits = 8 if codes.dtype in _EIGHT_BITS else 4
    shape = shape_of_torchao(files.metadata(files.shard_of[name], f"{stem}.{own}"), codes)
    found = [end for end in _TORCHAO_PARTS if f"{stem}._{own}_{end}" in files.tensors]
    parts = files.parts(name, stem, ()) | {end: files.part(f"{stem}._{own}_{end}") for end in found}
    return PackedWeight(f"{stem}.{own}", "torchao", bits, shape, parts) if shape else None


LAYOUTS: tuple[Callable[[str, CheckpointTensors], PackedWeight | None], ...] = (
    bitsandbytes_four_bit,
    bitsandbytes_eight_bit,
    gptq_or_awq,
    compressed_tensors,
    scaled_eight_bit,
    mxfp4,
    fused_eight_bit,
    modelopt_four_bit,
    bitnet,
    eetq,
    mlx,
    hqq,
    torchao,
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


def _method(config: Mapping[str, Any]) -> object:
    written = config.get("quantization_config")
    return written.get("quant_method") if isinstance(written, dict) else None


def _mlx_group(config: Mapping[str, Any], stem: str) -> int:
    """The values per scale of a module, which may have settings of its own; 0 if the config has none."""
    written = config.get("quantization")
    if not isinstance(written, dict):
        return 0
    own = written.get(stem)
    size = (own if isinstance(own, dict) else written).get("group_size")
    return size if isinstance(size, int) and size > 0 else 0


def _stored_sides(part: PackedPart | None, files: CheckpointTensors) -> tuple[int, int] | None:
    """The shape of a matrix that is stored as a tensor of two integers."""
    if part is None or part.info.dtype not in ("I64", "I32") or part.info.numel != 2:
        return None
    data = files.read(part.name)
    half = len(data) // 2
    rows, columns = (int.from_bytes(data[at : at + half], "little", signed=True) for at in (0, half))
    return (rows, columns) if rows > 0 and columns > 0 else None
