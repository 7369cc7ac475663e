"""`ensure_weight_tying`: which side of a tied embedding a merge changes, compared with the live adapter's
output.

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

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check

from .families import Family
from .peft_comparison import ask_us


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


def _whisper() -> Any:
    sides = {
        f"{side}_{size}": number
        for side in ("encoder", "decoder")
        for size, number in {"layers": 1, "attention_heads": 4, "ffn_dim": 48}.items()
    }
    config = transformers.WhisperConfig(
        d_model=32, vocab_size=96, num_mel_bins=8, max_source_positions=20, max_target_positions=20,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, **sides,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


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


@pytest.mark.parametrize("added", [0, 2])
@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_peft_saves_the_side_that_it_tied_too(saved: str, added: int, tmp_path: Path) -> None:
    """After the vocabulary was resized, PEFT also saves the wrappers of both sides, which it does not read
    back.
    """
    family = Family(_llama, transformers.AutoModelForCausalLM, "CAUSAL_LM", [])
    base = family.save(tmp_path / "base", torch.float32)
    model = family.load(base)
    model.resize_token_embeddings(96 + added)
    config = peft.LoraConfig(
        r=4,
        target_modules=["q_proj"],
        modules_to_save=[saved],
        ensure_weight_tying=True,
        task_type="CAUSAL_LM",
    )
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")

    report = check(open_dir(tmp_path / "adapter"), fingerprint(open_checkpoint(base)))

    expected = {"tied_embeddings", "vocabulary_resized"} if added else {"tied_embeddings"}
    assert {found.code for found in report.findings} == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "proj_out"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["proj_out"]},
    ],
    ids=["embedding adapted", "head adapted", "embedding saved", "head saved"],
)
def test_a_head_with_a_name_of_its_own_is_tied_like_in_the_live_adapter(
    fields: dict[str, list[str]], tmp_path: Path
) -> None:
    """An example is Whisper's `proj_out`. If an embedding and a head share a weight, PEFT's own merge changes
    it twice.
    """
    kind = transformers.WhisperForConditionalGeneration
    family = Family(_whisper, kind, None, [])
    base = family.save(tmp_path / "base", torch.float32)
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        trained = peft.get_peft_model(
            family.load(base), peft.LoraConfig(r=4, ensure_weight_tying=True, **fields)
        )
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.1
        trained.save_pretrained(tmp_path / "adapter")
        live = peft.PeftModel.from_pretrained(family.load(base), tmp_path / "adapter").eval()

    ours = ask_us(base, tmp_path / "adapter", tmp_path / "merged")

    assert not ours.blocked and not ours.refusal
    inputs = {"input_features": torch.randn(1, 8, 40), "decoder_input_ids": torch.tensor([[3, 5, 9, 60]])}
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        found, expected = family.load(tmp_path / "merged").eval()(**inputs).logits, live(**inputs).logits
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
