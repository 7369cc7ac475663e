"""Encoder-decoders that tie the embeddings of both stacks and the head to one weight: if only one user of the
weight is changed, it is merged like PEFT's live adapter, or the merge is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t
from tests.checks.peft_oracle import compare, is_close, save_base, save_trained

STACKS: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "vocab_size": 32, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 0,
    "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
SIZED = {**STACKS, "max_position_embeddings": 64}
LONG = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64, "attention_window": 4}
PROPHETNET: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
MODELS: dict[str, tuple[Any, Any]] = {
    "blenderbot": (t.BlenderbotForConditionalGeneration, t.BlenderbotConfig(**SIZED)),
    "blenderbot-small": (t.BlenderbotSmallForConditionalGeneration, t.BlenderbotSmallConfig(**SIZED)),
    "led": (t.LEDForConditionalGeneration, t.LEDConfig(**STACKS, **LONG)),
    "mvp": (t.MvpForConditionalGeneration, t.MvpConfig(**SIZED)),
    "plbart": (t.PLBartForConditionalGeneration, t.PLBartConfig(**SIZED)),
    "bigbird_pegasus": (
        t.BigBirdPegasusForConditionalGeneration,
        t.BigBirdPegasusConfig(**SIZED, attention_type="original_full"),
    ),
    "marian": (t.MarianMTModel, t.MarianConfig(**SIZED)),
    "prophetnet": (t.ProphetNetForConditionalGeneration, t.ProphetNetConfig(**PROPHETNET)),
}
INPUTS = {"input_ids": torch.arange(3, 11).unsqueeze(0), "decoder_input_ids": torch.tensor([[9, 4, 7]])}
ROWS = [3, 4, 5, 9]


def lora(targets: list[str] | str, **fields: Any) -> peft.LoraConfig:
    return peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **fields)


def configs(kind: str) -> dict[str, peft.PeftConfig]:
    """Adapters of one user of the weight, or of several."""
    embedding, query = (
        ("word_embeddings", "query_proj") if kind == "prophetnet" else ("embed_tokens", "q_proj")
    )
    return {
        "head": lora(["lm_head"]),
        "encoder": lora(rf".*encoder\.{embedding}"),
        "decoder": lora(rf".*decoder\.{embedding}"),
        "stacks and head": lora(rf".*(coder\.{embedding}|lm_head)"),
        "saved head": lora([query], modules_to_save=["lm_head"]),
        "saved in decoder": lora([query], modules_to_save=[f"decoder.{embedding}"]),
        "rows": lora([query], trainable_token_indices=ROWS),
        "rows of head": lora([query], trainable_token_indices={"lm_head": ROWS}),
        "rows of decoder": lora([query], trainable_token_indices={f"decoder.{embedding}": ROWS}),
    }


@pytest.mark.parametrize("kind", MODELS)
def test_each_user_of_the_weight_is_merged_like_the_live_adapter(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model_class, config = MODELS[kind]
    save_base(model_class(config), tmp_path / "base")
    for number, (name, trained) in enumerate(configs(kind).items()):
        folder = tmp_path / str(number)
        save_trained(model_class.from_pretrained(tmp_path / "base"), trained, folder)
        found = compare(model_class, INPUTS, tmp_path / "base", folder)
        assert found.live is not None, name
        assert not torch.equal(found.live, found.base), name
        assert is_close(found.ours, found.live), name


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("tied by PEFT in part", lora(".*(embed_tokens|q_proj)", ensure_weight_tying=True)),
        ("rows of several", lora(["q_proj"], trainable_token_indices={"embed_tokens": ROWS})),
        (
            "other rows",
            lora(["q_proj"], trainable_token_indices={"encoder.embed_tokens": [3, 4], "lm_head": [5, 9]}),
        ),
    ],
)
def test_a_marian_adapter_that_peft_merges_into_other_values_is_refused(
    name: str, config: peft.LoraConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model_class, own = MODELS["marian"]
    save_base(model_class(own), tmp_path / "base")
    save_trained(model_class.from_pretrained(tmp_path / "base"), config, tmp_path / "tone")
    found = compare(model_class, INPUTS, tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not is_close(found.live, found.merged), name
    assert found.ours is None


def test_a_head_tied_to_the_decoder_alone_is_not_changed_by_mistake(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model_class = t.MarianMTModel
    config = t.MarianConfig(**SIZED, share_encoder_decoder_embeddings=False, tie_word_embeddings=True)
    save_base(model_class(config), tmp_path / "base")
    trained = lora(["q_proj"], modules_to_save=["decoder.embed_tokens"])
    save_trained(model_class.from_pretrained(tmp_path / "base"), trained, tmp_path / "tone")
    found = compare(model_class, INPUTS, tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert found.ours is None or is_close(found.ours, found.live)
