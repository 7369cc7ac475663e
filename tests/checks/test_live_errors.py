"""Adapters that PEFT merges, but whose unmerged model raises an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t
from tests.checks.peft_oracle import compare, is_close, save_base, save_trained

SIZES: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
SAM = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
    "window_size": 2, "global_attn_indexes": [0], "output_channels": 8, "mlp_dim": 24,
}  # fmt: skip
STAGES = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
FOCAL = {"embed_dim": 8, "depths": [1], "patch_size": 4, "focal_levels": [1], "focal_windows": [3]}
PIXELS = {"pixel_values": torch.sin(torch.arange(3072.0)).view(1, 3, 32, 32)}
FEW_PIXELS = {"pixel_values": torch.sin(torch.arange(768.0)).view(1, 3, 16, 16)}


def parameter(name: str) -> peft.LoraConfig:
    return peft.LoraConfig(r=2, target_modules=[], target_parameters=[name], init_lora_weights=False)


def rotation(*names: str) -> peft.OFTConfig:
    return peft.OFTConfig(oft_block_size=4, target_modules=list(names))


@pytest.mark.parametrize(
    ("kind", "sizes", "config", "is_error"),
    [
        ("vit", SIZES, parameter("embeddings.cls_token"), True),
        ("deit", SIZES, parameter("embeddings.position_embeddings"), True),
        ("dinov3_vit", SIZES, parameter("embeddings.cls_token"), True),
        ("ijepa", SIZES, parameter("embeddings.position_embeddings"), True),
        ("vit_msn", SIZES, parameter("embeddings.cls_token"), True),
        ("sam_vision_model", SAM, parameter("attn.rel_pos_h"), True),
        ("dinov2", SIZES, parameter("embeddings.cls_token"), False),
        ("convnext", STAGES, rotation("pwconv1"), True),
        ("convnextv2", STAGES, rotation("pwconv2"), True),
        ("dinov3_convnext", STAGES, rotation("pointwise_conv1"), True),
        ("focalnet", FOCAL, rotation("projection_out"), True),
        ("vitdet", SIZES, rotation("fc1"), True),
        ("vitdet", SIZES, rotation("qkv"), True),
        ("sam_vision_model", SAM, rotation("lin1"), True),
        ("sam_vision_model", SAM, rotation("proj"), True),
        ("vit", SIZES, rotation("fc1"), False),
    ],
)
def test_a_live_model_that_raises_an_error_is_reported(
    kind: str, sizes: dict[str, Any], config: peft.PeftConfig, is_error: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = t.AutoModel.from_config(t.AutoConfig.for_model(kind, **sizes))
    save_base(model, tmp_path / "base")
    save_trained(type(model).from_pretrained(tmp_path / "base"), config, tmp_path / "tone")
    inputs = FEW_PIXELS if "image_size" in sizes else PIXELS
    found = compare(type(model), inputs, tmp_path / "base", tmp_path / "tone")
    assert (found.live is None) is is_error
    assert ("merge_differs" in found.codes) is is_error
    assert not found.is_blocked
    assert is_close(found.ours, found.merged)


def test_modules_that_transformers_moves_into_a_model_are_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = t.AutoModel.from_config(t.AutoConfig.for_model("dinov3_vit", **SIZES))
    save_base(model, tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    save_trained(type(model).from_pretrained(tmp_path / "base"), config, tmp_path / "tone")
    found = compare(type(model), FEW_PIXELS, tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not found.is_blocked
    assert is_close(found.ours, found.live)
