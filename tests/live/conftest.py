"""A tiny Llama saved by transformers, and adapters that PEFT trained on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

MakeAdapter = Callable[..., Path]
PROMPT = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def tiny_llama(hidden: int = 32) -> Any:
    """(`Any`: transformers is not typed.)"""
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=hidden, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=64, max_position_embeddings=64,
        )
    )  # fmt: skip


def answers(model: Any) -> torch.Tensor:
    """The logits for a fixed prompt."""
    model.eval()
    with torch.no_grad():
        return model(input_ids=PROMPT).logits


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tiny_llama().save_pretrained(folder)
    return folder


@pytest.fixture
def model(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base)


@pytest.fixture
def make(base: Path, tmp_path: Path) -> MakeAdapter:
    """A folder with a PEFT adapter of `base`, whose zeros are replaced so that it has an effect."""

    def made(seed: int = 1, config: peft.PeftConfig | None = None, model: Any = None) -> Path:
        config = config or peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        torch.manual_seed(seed)
        model = model or transformers.AutoModelForCausalLM.from_pretrained(base)
        wrapped = peft.get_peft_model(model, config)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        folder = tmp_path / f"adapter-{seed}"
        wrapped.save_pretrained(folder)
        return folder

    return made
