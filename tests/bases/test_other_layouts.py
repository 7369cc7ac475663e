"""Checkpoints that other quantisers than bitsandbytes pack are recognised: their weights have the names and
shapes of the model's, so an adapter of the model fits.

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

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors

StoredTensor = tuple[str, tuple[int, ...], bytes]
Packed = tuple[dict[str, StoredTensor], dict[str, str]]
"""Tensors in the place of one weight, and entries of the file's metadata."""
_SIZES = {"U8": 1, "I8": 1, "F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U32": 4, "I64": 8}


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
    """Tiles, in an order in which only the metadata has the weight's shape."""
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
    """Eight bits in groups of 8 for `q_proj`, which has its own settings, four in groups of 16 for others."""
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


def packed_copy(source: Path, folder: Path, layout: str) -> Path:
    """The base in `source` with projections packed, in `folder`."""
    pack, config, _ = LAYOUTS[layout]
    data = (source / "model.safetensors").read_bytes()
    tensors: dict[str, StoredTensor] = {}
    metadata = {"format": "pt"}
    for name, info in open_checkpoint(source).tensors.items():
        if not name.endswith("_proj.weight"):
            tensors[name] = (info.dtype, info.shape, data[info.start : info.end])
            continue
        parts, entries = pack(name.removesuffix(".weight"), *info.shape)
        tensors |= parts
        metadata |= entries
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors, metadata)
    written = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_copy_has_its_originals_shapes_and_its_adapters_fit(layout: str, tmp_path: Path) -> None:
    original = fingerprint(open_checkpoint(tiny_base(tmp_path / "base", hidden=32)))
    adapter = tiny_lora(tmp_path / "tone", hidden=32, targets=("q_proj", "down_proj"))

    copy = fingerprint(open_checkpoint(packed_copy(tmp_path / "base", tmp_path / "copy", layout)))

    assert copy.architecture == original.architecture
    assert copy.facts["quantization"] == LAYOUTS[layout][2]
    assert match_bases(original, copy).level == "cast"
    report = check(open_dir(adapter), copy)
    assert not report.blocking
    assert "base_quantised" in {finding.code for finding in report.findings}


def test_fused_experts_in_fp8_keep_their_shape_and_their_scales_are_no_weights(tmp_path: Path) -> None:
    """As transformers 5 saves them: a scale for each block of an expert's matrix, beside the codes."""
    tensors = {
        "model.embed_tokens.weight": zeros("BF16", 8, 4),
        "model.layers.0.mlp.experts.gate_up_proj": zeros("F8_E4M3", 2, 8, 4),
        "model.layers.0.mlp.experts.gate_up_proj_scale_inv": zeros("F32", 2, 1, 1),
    }
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))

    record = fingerprint(open_checkpoint(tmp_path))

    assert {name: tensor.shape for name, tensor in record.tensors.items()} == {
        "model.embed_tokens.weight": (8, 4),
        "model.layers.0.mlp.experts.gate_up_proj": (2, 8, 4),
    }
    assert record.facts["quantization"] == "fp8, 8-bit"


@pytest.mark.parametrize(
    ("layout", "config", "is_refused"),
    [
        ("torchao int8", {}, False),
        ("torchao int8", {"use_dora": True}, False),
        ("torchao int8", {"init_lora_weights": "pissa"}, True),
        ("compressed-tensors", {}, True),
        ("gptq", {}, False),
        ("gptq", {"use_dora": True}, True),
        ("gptq", {"init_lora_weights": "olora"}, True),
    ],
)
def test_a_check_says_which_loras_peft_refuses_on_the_weights_of_a_quantiser(
    layout: str, config: dict[str, Any], is_refused: bool, tmp_path: Path
) -> None:
    """As PEFT 0.21 did with bases of torchao 0.18, compressed-tensors 0.20 and GPTQModel 7.7."""
    base = packed_copy(tiny_base(tmp_path / "base", hidden=32), tmp_path / "copy", layout)
    extra = {}
    if "use_dora" in config:
        for layer in (0, 1):
            key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_magnitude_vector"
            extra[key] = ("F32", (32,), struct.pack("<32f", *[1.0] * 32))
    tone = tiny_lora(tmp_path / "tone", hidden=32, targets=("q_proj",), config=config, extra=extra)

    report = check(open_dir(tone), fingerprint(open_checkpoint(base)))

    assert not report.blocking
    assert ("quantised_refused" in {finding.code for finding in report.findings}) is is_refused
