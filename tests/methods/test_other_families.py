"""LoRAs that PEFT made on families with unusual names or classes, merged as PEFT merges them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers

from .families import Family
from .peft_comparison import ask_peft, ask_us, verdict

_SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "num_local_experts": 4,
}  # fmt: skip


def _granite() -> Any:
    """Its experts have other names on disk (`output_linear`) than in memory (`experts.down_proj`)."""
    config = transformers.GraniteMoeConfig(**_SMALL, num_experts_per_tok=2)
    return transformers.GraniteMoeForCausalLM(config)


def _llama4() -> Any:
    """Its router is a linear layer."""
    config = transformers.Llama4TextConfig(
        **_SMALL, head_dim=8, intermediate_size_mlp=48, num_experts_per_tok=1, interleave_moe_layer_step=1
    )
    return transformers.Llama4ForCausalLM(config)


def _trocr() -> Any:
    """transformers renames the modules of its encoder only."""
    encoder = transformers.ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, image_size=8,
        patch_size=4,
    )  # fmt: skip
    decoder = transformers.TrOCRConfig(
        d_model=32, decoder_ffn_dim=48, decoder_layers=1, decoder_attention_heads=4, vocab_size=96,
        cross_attention_hidden_size=32, max_position_embeddings=64,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    return transformers.VisionEncoderDecoderModel(config)


DOWN, UP = "experts.down_proj", "experts.gate_up_proj"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "fields"),
    [
        (
            _granite,
            {"target_modules": ["q_proj"], "target_parameters": [DOWN, UP], "rank_pattern": {DOWN: 2}},
        ),
        (_granite, {"target_modules": [], "target_parameters": [DOWN, UP], "alpha_pattern": {UP: 32}}),
        (_llama4, {"target_modules": "all-linear"}),
        (_trocr, {"target_modules": "all-linear"}),
        (_trocr, {"target_modules": ["q_proj", "fc2"], "exclude_modules": r"decoder\..*"}),
    ],
)
def test_a_lora_is_merged_as_peft_merges_it(build: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    if build is _trocr:
        family = Family(build, transformers.VisionEncoderDecoderModel, None, [])
    else:
        family = Family(build, transformers.AutoModelForCausalLM, "CAUSAL_LM", [])
    base = family.save(tmp_path / "base", torch.float32)
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        live = peft.get_peft_model(
            family.load(base), peft.LoraConfig(r=4, task_type=family.task, use_rslora=True, **fields)
        )
        with torch.no_grad():
            for parameter in live.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.1
        live.save_pretrained(tmp_path / "adapter")

    theirs = ask_peft(family, base, tmp_path / "adapter")
    ours = ask_us(base, tmp_path / "adapter", tmp_path / "merged")

    assert theirs.takes_all and not ours.blocked and not ours.refusal
    assert verdict(family, theirs, ours) is None
