"""BLIP-2 ties the embedding and head of its language model, under names that other models do not have. PEFT
looks for the tie only in the config of the whole model, which does not state it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import adaptry
from adaptry.errors import Unsupported

SIZES: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
WIDE = {**SIZES, "intermediate_size": 24}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.Blip2Config(
        vision_config={**WIDE, "image_size": 8, "patch_size": 4},
        qformer_config={**WIDE, "encoder_hidden_size": 16, "vocab_size": 32},
        text_config={
            **SIZES, "model_type": "opt", "ffn_dim": 24, "vocab_size": 32, "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
        },
        num_query_tokens=4,
        image_token_index=30,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("base")
    transformers.Blip2ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    return transformers.Blip2ForConditionalGeneration.from_pretrained(folder).eval()


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[30, 30, 30, 30, 3, 4, 5]])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, pixel_values=torch.ones(1, 3, 8, 8)).logits
    return found


def train(base: Path, config: peft.PeftConfig, folder: Path) -> torch.Tensor:
    """Saves an adapter in `folder`; returns the live model's output."""
    live = peft.get_peft_model(load(base), config).eval()
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.3
    live.save_pretrained(folder)
    return logits(live)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, target_modules=["embed_tokens"]),
        peft.LoraConfig(r=4, target_modules=["lm_head"]),
        peft.LoraConfig(r=4, target_modules=["fc1"], modules_to_save=["lm_head"]),
        peft.LoraConfig(r=4, target_modules=["fc1"], modules_to_save=["embed_tokens"]),
        peft.LoraConfig(r=4, target_modules=["fc1"], trainable_token_indices=[3, 4]),
        peft.TrainableTokensConfig(token_indices=[3, 4]),
    ],
)
def test_one_side_of_a_tied_part_is_not_merged(config: peft.PeftConfig, base: Path, tmp_path: Path) -> None:
    train(base, config, tmp_path / "tone")
    places = {"base": base, "registry": tmp_path / "registry", "progress": False}

    report = adaptry.check(tmp_path / "tone", **places)
    with pytest.raises(Unsupported, match="tie to other weights"):
        adaptry.merge(tmp_path / "tone", to=tmp_path / "merged", **places)

    assert not report.is_blocked


def test_other_modules_are_merged(base: Path, tmp_path: Path) -> None:
    expected = train(base, peft.LoraConfig(r=4, target_modules=["q_proj", "fc1"]), tmp_path / "tone")
    places = {"base": base, "registry": tmp_path / "registry", "progress": False}

    adaptry.merge(tmp_path / "tone", to=tmp_path / "merged", **places)

    assert torch.allclose(logits(load(tmp_path / "merged")), expected, rtol=0, atol=1e-4)
