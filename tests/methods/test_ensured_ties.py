"""`ensure_weight_tying`: which side of a tied embedding a merge changes, by the answers of the live adapter.

PEFT ties both sides only if the config lists `embed_tokens` or `lm_head`, and ignores the field for other
names. For a model whose embedding has another name, it still removes the head from `target_modules`, and so
drops the head's factors when it loads the adapter. The checks block such a file.
"""

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
from .judging import ask_us


def _llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def _falcon() -> Any:
    config = transformers.FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=96
    )
    return transformers.FalconForCausalLM(config)


def _bigcode() -> Any:
    config = transformers.GPTBigCodeConfig(n_embd=32, n_layer=1, n_head=4, vocab_size=96, n_positions=64)
    return transformers.GPTBigCodeForCausalLM(config)


EMBEDDINGS = {"embed_tokens": _llama, "word_embeddings": _falcon, "wte": _bigcode}


@pytest.mark.slow
@pytest.mark.parametrize("field", ["modules_to_save", "target_modules"])
@pytest.mark.parametrize("sides", ["embedding", "both"])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_merge_answers_like_the_live_adapter(
    embedding: str, sides: str, field: str, tmp_path: Path
) -> None:
    family = Family(EMBEDDINGS[embedding], transformers.AutoModelForCausalLM, "CAUSAL_LM", [])
    base = family.save(tmp_path / "base", torch.float32)
    names = [embedding] if sides == "embedding" else [embedding, "lm_head"]
    fields = {"target_modules": "all-linear", field: names, "ensure_weight_tying": True}
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        trained = peft.get_peft_model(
            family.load(base), peft.LoraConfig(r=4, task_type="CAUSAL_LM", **fields)
        )
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.1
        trained.save_pretrained(tmp_path / "adapter")
        live = peft.PeftModel.from_pretrained(family.load(base), tmp_path / "adapter").eval()

    ours = ask_us(base, tmp_path / "adapter", tmp_path / "merged")

    if field == "target_modules" and sides == "both" and embedding != "embed_tokens":
        assert ours.blocked == (
            "modules_not_targeted: 2 tensors of lm_head: target_modules does not include it",
        )
        assert not hasattr(live.get_base_model().lm_head, "lora_A")
        return
    assert not ours.blocked and not ours.refusal
    tokens = torch.tensor([[1, 2, 3, 5]])
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        found, expected = family.load(tmp_path / "merged").eval()(tokens).logits, live(tokens).logits
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
