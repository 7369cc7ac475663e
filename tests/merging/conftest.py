"""Real models and real PEFT adapters, small enough to merge in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

Make = Callable[..., Path]


def small_model(kind: str, tied: bool = False) -> Any:
    """A seeded, random fp32 model of a kind (llama or gpt2)."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=96, n_positions=64)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, max_position_embeddings=64, tie_word_embeddings=tied,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.fixture
def make_base(tmp_path: Path) -> Make:
    """`make_base(kind, dtype=…, shard=…, tied=…)` saves a model with transformers."""

    def make(kind: str = "llama", dtype: Any = torch.float32, shard: str = "1GB", tied: bool = False) -> Path:
        folder = tmp_path / f"{kind}-base"
        small_model(kind, tied).to(dtype).save_pretrained(folder, max_shard_size=shard)
        return folder

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> Make:
    """`make_adapter(base, name, **LoraConfig fields)` saves a LoRA with PEFT whose B is not zero."""

    def make(
        base: Path, name: str = "adapter", seed: int = 1, embeddings: Any = "auto", **fields: Any
    ) -> Path:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **fields))
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.05)
        adapted.save_pretrained(tmp_path / name, save_embedding_layers=embeddings)
        return tmp_path / name

    return make


def merged_by_peft(base: Path, *adapters: Path) -> dict[str, Any]:
    """The state dict after PEFT's own merge of one adapter after another."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    for adapter in adapters:
        model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return dict(model.state_dict())


def tensors_of(folder: Path) -> dict[str, Any]:
    """Every tensor in the safetensors files of a folder, read by the reference library."""
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
