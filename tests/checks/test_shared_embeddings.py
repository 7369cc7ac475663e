"""Encoder-decoders whose stacks call their own embeddings, which are tied to one that is never called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t

import adaptry

STACKS: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "vocab_size": 32, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip
PROPHETNET: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
MODELS: dict[str, tuple[Any, Any, str, str]] = {
    "t5": (t.T5ForConditionalGeneration, t.T5Config(**T5), "shared", "q"),
    "bart": (t.BartForConditionalGeneration, t.BartConfig(**STACKS), "model.shared", "q_proj"),
    "marian": (t.MarianMTModel, t.MarianConfig(**STACKS), "model.shared", "q_proj"),
    "prophetnet": (
        t.ProphetNetForConditionalGeneration,
        t.ProphetNetConfig(**PROPHETNET),
        "prophetnet.word_embeddings",
        "query_proj",
    ),
}
"""The class, its config, the embedding that holds the weight, and a module to adapt beside it."""


def build(kind: str, folder: Path) -> Any:
    torch.manual_seed(0)
    model_class, config, _, _ = MODELS[kind]
    model = model_class(copy.deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.2
    model.save_pretrained(folder)
    return model_class.from_pretrained(folder).eval()


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[3, 4, 5, 9]])
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, decoder_input_ids=ids).logits
    return found


def train(base: Any, config: peft.PeftConfig, folder: Path) -> Any:
    """The live model with the adapter in `folder`, of which everything except a LoRA's factors was
    trained.
    """
    adapted = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += torch.randn(parameter.shape)
    adapted.save_pretrained(folder)
    return adapted


def beside(kind: str, **fields: Any) -> peft.LoraConfig:
    return peft.LoraConfig(r=2, target_modules=[MODELS[kind][3]], **fields)


def ask_us(folder: Path) -> set[str]:
    places = {"base": folder / "base", "registry": folder / "registry", "progress": False}
    report = adaptry.check(folder / "tone", **places)
    assert [finding.reason for finding in report.findings if finding.severity == "blocks"] == []
    return {finding.code for finding in report.findings}


def merged(kind: str, folder: Path) -> torch.Tensor:
    places = {"base": folder / "base", "registry": folder / "registry", "progress": False}
    adaptry.merge(folder / "tone", to=folder / "merged", **places)
    return logits(MODELS[kind][0].from_pretrained(folder / "merged").eval())


@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_of_an_embedding_that_no_one_calls_is_reported_and_not_merged(
    kind: str, tmp_path: Path
) -> None:
    base = build(kind, tmp_path / "base")
    before = logits(base)
    live = train(base, beside(kind, modules_to_save=[MODELS[kind][2]]), tmp_path / "tone")

    assert torch.equal(logits(live), before)
    assert "saved_copy_unused" in ask_us(tmp_path)
    assert torch.allclose(merged(kind, tmp_path), before, rtol=0, atol=1e-5)
    assert torch.equal(logits(live.merge_and_unload()), before)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside a LoRA"])
def test_rows_of_that_embedding_act_if_it_is_the_input_embedding(
    kind: str, is_alone: bool, tmp_path: Path
) -> None:
    base, rows, path = build(kind, tmp_path / "base"), [3, 4, 5], MODELS[kind][2]
    before = logits(base)
    alone = peft.TrainableTokensConfig(target_modules=[path], token_indices=rows)
    config = alone if is_alone else beside(kind, trainable_token_indices={path: rows})
    live = train(base, config, tmp_path / "tone")
    answers = logits(live)

    is_idle = torch.equal(answers, before)
    assert is_idle is (kind == "marian")
    assert ("modules_bypassed" in ask_us(tmp_path)) is is_idle
    expected = logits(live.merge_and_unload()) if is_idle else answers
    assert torch.allclose(merged(kind, tmp_path), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart", "prophetnet"])
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_rows_of_the_embedding_of_one_stack_are_not_blocked(kind: str, stack: str, tmp_path: Path) -> None:
    base = build(kind, tmp_path / "base")
    before = logits(base)
    path = MODELS[kind][2]
    around, _, name = path.rpartition(".")
    name = "embed_tokens" if name == "shared" else name
    target = ".".join(filter(None, (around, stack, name)))
    live = train(
        base, peft.TrainableTokensConfig(target_modules=[target], token_indices=[3]), tmp_path / "tone"
    )

    assert not torch.equal(logits(live), before)
    assert "modules_bypassed" not in ask_us(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "bart", "prophetnet"])
def test_the_default_of_trainable_tokens_is_merged_like_the_live_adapter(kind: str, tmp_path: Path) -> None:
    base = build(kind, tmp_path / "base")
    live = train(base, peft.TrainableTokensConfig(token_indices=[3, 4, 5]), tmp_path / "tone")

    ask_us(tmp_path)
    assert torch.allclose(merged(kind, tmp_path), logits(live), rtol=0, atol=1e-4)
