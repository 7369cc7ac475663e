"""T5 models with a separate head, such as FLAN-T5: PEFT assumes that the head is tied to the embedding, and
so gives it the rows that an adapter trains in the embedding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t
from torch import nn

import adaptry

SIZES: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip
MODELS = {
    "t5": (t.T5ForConditionalGeneration, t.T5Config),
    "mt5": (t.MT5ForConditionalGeneration, t.MT5Config),
    "umt5": (t.UMT5ForConditionalGeneration, t.UMT5Config),
    "longt5": (t.LongT5ForConditionalGeneration, t.LongT5Config),
}


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[3, 4, 5, 9]])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, decoder_input_ids=ids).logits
    return found


def configs() -> dict[str, peft.PeftConfig]:
    """Configs with which PEFT trains rows of the embedding, and possibly other rows of the head."""
    lora: dict[str, Any] = {"r": 2, "target_modules": ["q"], "init_lora_weights": False}
    rows = [3, 4, 5]
    return {
        "list": peft.LoraConfig(**lora, trainable_token_indices=rows),
        "shared": peft.LoraConfig(**lora, trainable_token_indices={"shared": rows}),
        "both": peft.LoraConfig(**lora, trainable_token_indices={"shared": rows, "lm_head": rows}),
        "other rows": peft.LoraConfig(**lora, trainable_token_indices={"shared": rows, "lm_head": [9]}),
        "head": peft.LoraConfig(**lora, trainable_token_indices={"lm_head": rows}),
        "alone": peft.TrainableTokensConfig(token_indices=rows),
        "alone in shared": peft.TrainableTokensConfig(target_modules=["shared"], token_indices=rows),
    }


def save(kind: str, has_own_head: bool, folder: Path) -> Any:
    """Saves the model, and loads it again. (`Any`: transformers is not typed.)"""
    torch.manual_seed(0)
    model_class, config_class = MODELS[kind]
    model = model_class(config_class(**SIZES))
    if has_own_head:
        model.lm_head.weight = nn.Parameter(torch.randn(model.lm_head.weight.shape))
    model.save_pretrained(folder)
    if has_own_head:
        written = folder / "config.json"
        written.write_text(json.dumps(json.loads(written.read_text()) | {"tie_word_embeddings": False}))
    return model_class.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("kind", "trained", "has_own_head"),
    [
        *((kind, "list", has_own_head) for kind in MODELS for has_own_head in (True, False)),
        *(("t5", trained, True) for trained in configs()),
    ],
)
def test_trained_rows_are_merged_into_a_head_to_which_peft_gives_them(
    kind: str, trained: str, has_own_head: bool, tmp_path: Path
) -> None:
    base = save(kind, has_own_head, tmp_path / "base")
    before = logits(base)
    adapted = peft.get_peft_model(base, configs()[trained]).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter += torch.randn(parameter.shape)
    adapted.save_pretrained(tmp_path / "tone")
    places = {"base": tmp_path / "base", "registry": tmp_path / "registry", "progress": False}

    report = adaptry.check(tmp_path / "tone", **places)
    adaptry.merge(tmp_path / "tone", to=tmp_path / "merged", **places)

    merged = MODELS[kind][0].from_pretrained(tmp_path / "merged").eval()
    assert not torch.allclose(logits(adapted), before, rtol=0, atol=1e-2)
    is_bypassed = "modules_bypassed" in {finding.code for finding in report.findings}
    assert is_bypassed is (trained == "other rows")  # PEFT then ties neither, and `shared` is never called
    assert torch.allclose(logits(merged), logits(adapted), rtol=0, atol=1e-3) is not is_bypassed
    assert "merge_differs" not in {finding.code for finding in report.findings}
