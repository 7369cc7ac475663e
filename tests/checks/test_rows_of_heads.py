"""Trained token rows of output heads with a bias: PEFT's layer for rows leaves the bias out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t

import adaptry

SIZES: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
MODELS: dict[str, tuple[Any, Any, bool]] = {
    "bert": (t.BertForMaskedLM, t.BertConfig(**SIZES), True),
    "albert": (t.AlbertForMaskedLM, t.AlbertConfig(**SIZES, embedding_size=12), True),
    "roberta": (t.RobertaForMaskedLM, t.RobertaConfig(**SIZES), True),
    "electra": (t.ElectraForMaskedLM, t.ElectraConfig(**SIZES, embedding_size=16), True),
    "esm": (t.EsmForMaskedLM, t.EsmConfig(**SIZES, pad_token_id=1, mask_token_id=2), False),
    "xlnet": (
        t.XLNetLMHeadModel,
        t.XLNetConfig(vocab_size=32, d_model=16, n_layer=1, n_head=2, d_inner=24),
        True,
    ),
    "llama": (t.LlamaForCausalLM, t.LlamaConfig(**SIZES, tie_word_embeddings=True), False),
}
"""The class, its config, and whether the bias is the head's own."""


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[3, 4, 5, 9]])).logits
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_a_bias_that_peft_leaves_out_is_reported(kind: str, tmp_path: Path) -> None:
    model_class, config, loses_bias = MODELS[kind]
    torch.manual_seed(0)
    model = model_class(copy.deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.2
    model.save_pretrained(tmp_path / "base")
    base = model_class.from_pretrained(tmp_path / "base").eval()
    live = peft.get_peft_model(base, peft.TrainableTokensConfig(token_indices=[3, 4, 5])).eval()
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape)
    live.save_pretrained(tmp_path / "tone")
    places = {"base": tmp_path / "base", "registry": tmp_path / "registry", "progress": False}

    report = adaptry.check(tmp_path / "tone", **places)
    adaptry.merge(tmp_path / "tone", to=tmp_path / "merged", **places)

    answers = logits(model_class.from_pretrained(tmp_path / "merged").eval())
    assert torch.allclose(answers, logits(live), rtol=0, atol=1e-3) is not loses_bias
    assert ("merge_differs" in {finding.code for finding in report.findings}) is loses_bias
    assert torch.allclose(answers, logits(live.merge_and_unload()), rtol=0, atol=1e-3)
