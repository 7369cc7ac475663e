"""Small bases, packed as quantisers pack them: the names, dtypes and shapes are real, the values are zeros.

The layouts are those of checkpoints that torchao 0.18, HQQ 0.2.8, mlx-lm 0.32 and compressed-tensors 0.20
wrote; the others are those of transformers 5.24, GPTQModel and ModelOpt's exports.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptry.bases.conv1d import is_named_conv1d
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.testing.samples import write_safetensors

StoredTensor = tuple[str, tuple[int, ...], bytes]
Packed = tuple[dict[str, StoredTensor], dict[str, str]]
"""Tensors in the place of one weight, and entries of the file's metadata."""
_SIZES = {"U8": 1, "I8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U32": 4, "I64": 8}


def is_projection(name: str) -> bool:
    return name.endswith("_proj.weight")


def zeros(dtype: str, *shape: int) -> StoredTensor:
    return dtype, shape, bytes(_SIZES[dtype] * math.prod(shape))


def torchao_int8(stem: str, rows: int, columns: int) -> Packed:
    entry = {"_type": "Int8Tensor", "_data": {"block_size": [1, columns]}, "_tensor_data_names": ["qdata"]}
    tensors = {
        f"{stem}._weight_qdata": zeros("I8", rows, columns),
        f"{stem}._weight_scale": zeros("F32", rows, 1),
        f"{stem}._weight_zero_point": zeros("I8", rows, 1),
    }
    return tensors, {f"{stem}.weight": json.dumps(entry)}


def torchao_int4(stem: str, rows: int, columns: int) -> Packed:
    """Tiles, ordered so that only the metadata shows the weight's shape."""
    data = {"block_size": [1, 32], "shape": [rows, columns]}
    tensors = {
        f"{stem}._weight_qdata": zeros("I32", 1, 1, 32, rows * columns // 8 // 32),
        f"{stem}._weight_scale_and_zero": zeros("BF16", 1, rows, 2),
    }
    entry = {"_type": "Int4TilePackedTo4dTensor", "_data": data, "_tensor_data_names": ["qdata"]}
    return tensors, {f"{stem}.weight": json.dumps(entry)}


def torchao_nvfp4(stem: str, rows: int, columns: int) -> Packed:
    tensors = {
        f"{stem}._weight_qdata": zeros("U8", rows, columns // 2),
        f"{stem}._weight_scale": zeros("F8_E4M3", rows, columns // 16),
    }
    return tensors, {f"{stem}.weight": json.dumps({"_type": "NVFP4Tensor", "_data": {"block_size": 16}})}


def hqq(stem: str, rows: int, columns: int) -> Packed:
    settings = {name: zeros("U8") for name in ("view_as_float", "quant_scale", "round_zero", "optimize")}
    parts = {
        "W_q": zeros("U8", rows * columns // 2 // 8, 8),
        "shape": ("I64", (2,), struct.pack("<2q", rows, columns)),
        "scale": zeros("BF16", rows, 1),
        "zero": zeros("BF16", rows, 1),
        "nbits": zeros("I32"),
        "packing": zeros("U8", 7),
        **settings,
    }
    return {f"{stem}.{name}": tensor for name, tensor in parts.items()}, {}


def mlx(stem: str, rows: int, columns: int) -> Packed:
    """Eight bits in groups of 8 for `q_proj`, which has its own settings; four bits in groups of 16 for the
    others.
    """
    bits, group = (8, 8) if stem.endswith("q_proj") else (4, 16)
    tensors = {f"{stem}.weight": zeros("U32", rows, columns * bits // 32)}
    return tensors | {
        f"{stem}.{name}": zeros("BF16", rows, columns // group) for name in ("scales", "biases")
    }, {}


def modelopt(stem: str, rows: int, columns: int) -> Packed:
    tensors = {
        f"{stem}.weight": zeros("U8", rows, columns // 2),
        f"{stem}.weight_scale": zeros("F8_E4M3", rows, columns // 16),
        f"{stem}.weight_scale_2": zeros("F32"),
        f"{stem}.input_scale": zeros("F32"),
    }
    return tensors, {}


def bitnet(stem: str, rows: int, columns: int) -> Packed:
    return {f"{stem}.weight": zeros("U8", rows // 4, columns), f"{stem}.weight_scale": zeros("BF16", 1)}, {}


def eetq(stem: str, rows: int, columns: int) -> Packed:
    return {f"{stem}.weight": zeros("I8", columns, rows), f"{stem}.weight_scales": zeros("F16", rows)}, {}


def gptq(stem: str, rows: int, columns: int) -> Packed:
    parts = {
        "qweight": zeros("I32", columns // 8, rows),
        "qzeros": zeros("I32", 1, rows // 8),
        "scales": zeros("F16", 1, rows),
        "g_idx": zeros("I32", columns),
    }
    return {f"{stem}.{name}": tensor for name, tensor in parts.items()}, {}


def compressed_tensors(stem: str, rows: int, columns: int) -> Packed:
    parts = {
        "weight_packed": zeros("I32", rows, columns // 8),
        "weight_scale": zeros("BF16", rows, 1),
        "weight_shape": ("I64", (2,), struct.pack("<2q", rows, columns)),
    }
    return {f"{stem}.{name}": tensor for name, tensor in parts.items()}, {}


_OWN = {f"model.layers.{layer}.self_attn.q_proj": {"group_size": 8, "bits": 8} for layer in (0, 1)}
LAYOUTS: dict[str, tuple[Callable[[str, int, int], Packed], dict[str, Any], str]] = {  # (`Any`: JSON.)
    "torchao int8": (torchao_int8, {"quantization_config": {"quant_method": "torchao"}}, "torchao, 8-bit"),
    "torchao int4": (torchao_int4, {"quantization_config": {"quant_method": "torchao"}}, "torchao, 4-bit"),
    "torchao nvfp4": (torchao_nvfp4, {"quantization_config": {"quant_method": "torchao"}}, "torchao, 4-bit"),
    "hqq": (hqq, {"quantization_config": {"quant_method": "hqq"}}, "hqq, 4-bit"),
    "mlx": (mlx, {"quantization": {"group_size": 16, "bits": 4, **_OWN}}, "mlx, 4-bit and mlx, 8-bit"),
    "modelopt": (modelopt, {"quantization_config": {"quant_method": "modelopt"}}, "nvfp4, 4-bit"),
    "bitnet": (bitnet, {"quantization_config": {"quant_method": "bitnet"}}, "bitnet, 2-bit"),
    "gptq": (gptq, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, 4-bit"),
    "compressed-tensors": (
        compressed_tensors,
        {"quantization_config": {"quant_method": "compressed-tensors"}},
        "compressed-tensors, 4-bit",
    ),
    "eetq": (eetq, {"quantization_config": {"quant_method": "eetq"}}, "eetq, 8-bit"),
}


def packed_copy(
    source: Path, folder: Path, layout: str, is_packed: Callable[[str], bool] = is_projection
) -> Path:
    """Writes the base in `source` into `folder`, with these matrices packed (by default the projections).
    Only GPTQ packs a Conv1D, as if it were linear.
    """
    pack, config, _ = LAYOUTS[layout]
    data = (source / "model.safetensors").read_bytes()
    written = json.loads((source / "config.json").read_text())
    kind = str(written.get("model_type"))
    tensors: dict[str, StoredTensor] = {}
    metadata = {"format": "pt"}
    for name, info in open_checkpoint(source).tensors.items():
        stem = name.removesuffix(".weight")
        is_conv1d = is_named_conv1d(stem, kind)
        if len(info.shape) != 2 or not is_packed(name) or (is_conv1d and layout != "gptq"):
            tensors[name] = (info.dtype, info.shape, data[info.start : info.end])
            continue
        rows, columns = info.shape[::-1] if is_conv1d else info.shape
        parts, entries = pack(stem, rows, columns)
        tensors |= parts
        metadata |= entries
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", tensors, metadata)
    (folder / "config.json").write_text(json.dumps(written | config))
    return folder
