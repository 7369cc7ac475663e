"""T5 models with a head of their own, as FLAN-T5, of which PEFT believes that it is tied to the embedding."""

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


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("has_own_head", [True, False], ids=["own head", "tied head"])
def test_trained_rows_that_peft_gives_to_an_untied_head_are_reported(
    kind: str, has_own_head: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model_class, config_class = MODELS[kind]
    model = model_class(config_class(**SIZES))
    if has_own_head:
        model.lm_head.weight = nn.Parameter(torch.randn(model.lm_head.weight.shape))
    model.save_pretrained(tmp_path / "base")
    if has_own_head:
        written = tmp_path / "base" / "config.json"
        written.write_text(json.dumps(json.loads(written.read_text()) | {"tie_word_embeddings": False}))
    config = peft.LoraConfig(
        r=2, target_modules=["q"], init_lora_weights=False, trainable_token_indices=[3, 4, 5]
    )
    base = model_class.from_pretrained(tmp_path / "base").eval()
    adapted = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter += torch.randn(parameter.shape)
    adapted.save_pretrained(tmp_path / "tone")
    places = {"base": tmp_path / "base", "registry": tmp_path / "registry", "progress": False}

    report = adaptry.check(tmp_path / "tone", **places)
    adaptry.merge(tmp_path / "tone", to=tmp_path / "merged", **places)

    merged = model_class.from_pretrained(tmp_path / "merged").eval()
    is_alike = torch.allclose(logits(merged), logits(adapted), rtol=0, atol=1e-3)
    assert is_alike is not has_own_head
    assert ("merge_differs" in {finding.code for finding in report.findings}) is has_own_head
