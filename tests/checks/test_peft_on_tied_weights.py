"""Adapters of models whose output head, or whose stacks' embeddings, are tied to the input embedding and not
stored in the checkpoint: what PEFT refuses, loads and computes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t
from tests.checks.peft_oracle import compare, is_close, save_base, save_trained
from tests.checks.test_peft_refusals import BOTH, MODELS, STACKS, WORDS, WRITTEN, edit, lora

ROWS = [3, 4, 5, 9]
PROPHETNET: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "vocab_size": 32, "hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
TIED = {**WORDS, "num_key_value_heads": 1, "tie_word_embeddings": True}


def blip2() -> Any:
    image = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    former = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "encoder_hidden_size": 16, "vocab_size": 32,
    }  # fmt: skip
    text = t.OPTConfig(**WORDS, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=64).to_dict()
    config = t.Blip2Config(
        vision_config=image, qformer_config=former, text_config=text, num_query_tokens=2, image_token_index=31
    )
    return t.Blip2ForConditionalGeneration(config)


def whisper() -> Any:
    sized = {name: size for name, size in STACKS.items() if name != "max_position_embeddings"}
    return t.WhisperForConditionalGeneration(
        t.WhisperConfig(**sized, num_mel_bins=8, max_source_positions=8, max_target_positions=16)
    )


def xlnet() -> Any:
    return t.XLNetLMHeadModel(t.XLNetConfig(vocab_size=32, d_model=16, n_layer=1, n_head=2, d_inner=24))


SOUND = {
    "input_features": torch.sin(torch.arange(128.0)).view(1, 8, 16),
    "decoder_input_ids": BOTH["decoder_input_ids"],
}
KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    **MODELS,
    "gpt2": (
        lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=64)
        ),
        WRITTEN,
    ),
    "llama_tied": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**TIED)), WRITTEN),
    "t5": (
        lambda: t.T5ForConditionalGeneration(
            t.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
        ),
        BOTH,
    ),
    "t5_unscaled": (
        lambda: t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
                tie_word_embeddings=False,
            )
        ),
        BOTH,
    ),
    "prophetnet": (lambda: t.ProphetNetForConditionalGeneration(t.ProphetNetConfig(**PROPHETNET)), BOTH),
    "whisper": (whisper, SOUND),
    "xlnet": (xlnet, WRITTEN),
    "blip2": (blip2, {"input_ids": torch.tensor([[31, 31, 4, 5]]), "pixel_values": torch.ones(1, 3, 16, 16)}),
}  # fmt: skip


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    torch.manual_seed(0)
    kind = str(request.param)
    model = KINDS[kind][0]()
    save_base(model, tmp_path / "base")
    return kind, type(model).from_pretrained(tmp_path / "base")


@pytest.mark.parametrize(
    ("base", "config", "saved"),
    [
        ("blip2", lora("qkv"), ["lm_head"]),
        ("bart", lora("q_proj"), ["embed_tokens"]),
        ("t5_encoder", peft.LNTuningConfig(modules_to_save=["SelfAttention.q"]), ["q", "embed_tokens"]),
        ("bert_mlm", lora("query", modules_to_save=["transform.dense"]), ["transform.dense", "decoder"]),
        ("whisper", lora("q_proj"), ["proj_out"]),
        ("prophetnet", lora("query_proj"), ["encoder.word_embeddings"]),
    ],
    indirect=["base"],
)
def test_a_saved_weight_that_only_the_model_has_is_missing(
    base: tuple[str, Any], config: peft.PeftConfig, saved: list[str], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, config, tmp_path / "tone")
    edit(tmp_path / "tone", modules_to_save=saved)
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "KeyError" in found.refusal
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize(
    ("base", "config"),
    [
        ("gpt2", lora("lm_head", trainable_token_indices=ROWS)),
        ("llama_tied", lora("lm_head", "q_proj", trainable_token_indices=ROWS)),
        ("bart", lora("lm_head", trainable_token_indices=ROWS)),
        ("t5", lora("lm_head", trainable_token_indices=ROWS)),
        ("t5_unscaled", lora("lm_head", trainable_token_indices=ROWS)),
        ("whisper", lora("proj_out", trainable_token_indices=ROWS)),
        ("xlnet", lora("lm_loss", trainable_token_indices=ROWS, target_parameters=["rel_attn.q"])),
        (
            "gpt2",
            peft.AdaLoraConfig(
                init_r=4, target_r=2, total_step=10, target_modules=["lm_head"], trainable_token_indices=ROWS
            ),
        ),
    ],
    indirect=["base"],
)
def test_an_update_of_a_head_is_added_to_its_trained_rows(
    base: tuple[str, Any], config: peft.PeftConfig, tmp_path: Path
) -> None:
    kind, model = base
    if kind == "xlnet":  # PEFT leaves out its bias; this has its own test
        torch.nn.init.zeros_(model.lm_loss.bias)
        model.save_pretrained(tmp_path / "base")
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not torch.equal(found.live, found.base)
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize("base", ["gpt2", "bart", "bert_mlm"], indirect=True)
def test_dora_of_a_head_with_trained_rows_is_refused(base: tuple[str, Any], tmp_path: Path) -> None:
    kind, model = base
    head = "cls.predictions.decoder" if kind == "bert_mlm" else "lm_head"
    config = lora(head, trainable_token_indices=ROWS, use_dora=True)
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is None
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize("base", ["prophetnet", "bart", "t5"], indirect=True)
def test_a_tie_that_makes_an_embedding_a_linear_layer_is_refused(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    query = {"prophetnet": "query_proj", "bart": "q_proj", "t5": "q"}[kind]
    config = lora(query, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    save_trained(model, config, tmp_path / "tone")
    edit(tmp_path / "tone", modules_to_save=["embed_tokens"])
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is None
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize("base", ["bert_mlm", "xlnet"], indirect=True)
def test_the_bias_that_a_tied_copy_of_a_head_lacks_is_reported(base: tuple[str, Any], tmp_path: Path) -> None:
    kind, model = base
    query = "query" if kind == "bert_mlm" else "layer_1"
    config = lora(query, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None
    assert not is_close(found.ours, found.live)
    assert not found.is_blocked
    assert "merge_differs" in found.codes


@pytest.mark.parametrize("method", [peft.VeraConfig, peft.PveraConfig, peft.RandLoraConfig])
@pytest.mark.parametrize("base", ["llama_tied", "bart"], indirect=True)
def test_shared_projections_are_as_large_as_a_tied_head(
    base: tuple[str, Any], method: Callable[..., peft.PeftConfig], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, method(r=4, target_modules=["q_proj", "lm_head"]), tmp_path / "tone")
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None
    assert not found.is_blocked
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize("base", ["bert_mlm"], indirect=True)
def test_the_bias_of_an_adapted_head_with_trained_rows_is_loaded(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    config = lora("cls.predictions.decoder", trainable_token_indices=ROWS, bias="all")
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), KINDS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None
    assert not found.is_blocked
