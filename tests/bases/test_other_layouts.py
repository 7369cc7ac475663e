"""Checkpoints packed by quantisers other than bitsandbytes are recognised: their weights have the names and
shapes of the model's, so an adapter of the model fits.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors

from .packed_layouts import LAYOUTS, packed_copy, zeros


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
    """transformers 5 saves them like this: a scale for each block of an expert's matrix, next to the
    codes.
    """
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
    """The refusals are those of PEFT 0.21 with bases of torchao 0.18, compressed-tensors 0.20 and GPTQModel
    7.7.
    """
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
