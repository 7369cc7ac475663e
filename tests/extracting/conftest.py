"""Small models of several kinds, each with a fine-tuned copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 100,
}  # fmt: skip


def model_of(kind: str) -> Any:
    """A seeded, random fp32 model."""
    torch.manual_seed(0)
    grouped = {**SIZES, "num_key_value_heads": 2}
    match kind:
        case "llama":
            return transformers.LlamaForCausalLM(transformers.LlamaConfig(**grouped))
        case "tied llama":
            config = transformers.LlamaConfig(**grouped, tie_word_embeddings=True)
            return transformers.LlamaForCausalLM(config)
        case "qwen2":
            return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**grouped))
        case "mixtral":
            return transformers.MixtralForCausalLM(transformers.MixtralConfig(**grouped, num_local_experts=4))
        case "gpt2":
            config = transformers.GPT2Config(
                n_embd=64, n_layer=2, n_head=2, vocab_size=100, n_positions=64, bos_token_id=1, eos_token_id=2
            )
            return transformers.GPT2LMHeadModel(config)
        case "bert":
            return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
        case "t5":
            config = transformers.T5Config(
                d_model=64, d_ff=96, d_kv=16, num_layers=2, num_heads=4, vocab_size=100
            )
            return transformers.T5ForConditionalGeneration(config)
    raise ValueError(kind)


def trained(model: Any, only: Sequence[str] = ("",), seed: int = 1) -> Any:
    """A copy in which the parameters whose names contain one of these words have random changes of full
    rank.
    """
    torch.manual_seed(seed)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if any(word in name for word in only):
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return moved


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """`saved(model, name, **options of save_pretrained)` returns the folder."""

    def save(model: Any, name: str, **options: Any) -> Path:
        model.save_pretrained(tmp_path / name, **options)
        return tmp_path / name

    return save


def answers(model: Any) -> Any:
    """The logits of some tokens."""
    tokens = torch.arange(20).view(1, 20)
    more = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(tokens, **more).logits
