"""Computes the results of PEFT's `add_weighted_adapter` on tiny models that register modules in its order."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM


class Convolutions(nn.Module):
    """Two convolutions, one of them 1×1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 8, 3)
        self.conv2 = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


def llama() -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 40, "vocab_size": 50, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))


def many_layers() -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 20, "num_hidden_layers": 12}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16))


def bert() -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 40, "vocab_size": 50, "num_hidden_layers": 2}
    return BertModel(BertConfig(**sizes, num_attention_heads=4, max_position_embeddings=16))


MODELS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "llama": (
        llama,
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    ),
    "llama, with tokens": (llama, {"target_modules": ["embed_tokens", "v_proj", "q_proj"]}),
    "llama, twelve layers": (many_layers, {"target_modules": ["q_proj", "v_proj"]}),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "bert": (bert, {"target_modules": ["query", "key", "value", "dense"]}),
    "convolutions": (Convolutions, {"target_modules": ["conv1", "conv2"], "task_type": "FEATURE_EXTRACTION"}),
}


def base(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name][0]()  # type: ignore[no-any-return]


def trained(model: nn.Module, name: str, folder: Path, seed: int, **told: Any) -> Path:
    """Makes an adapter with PEFT, with factors as if it were trained; returns its folder."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, **MODELS[name][1], **told})
    adapted = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1, generator=generator)
    adapted.save_pretrained(folder)
    return folder


def weighted(
    model: nn.Module, folders: Sequence[Path], weights: Sequence[float], kind: str, seed: int = 0, **told: Any
) -> tuple[dict[str, Tensor], LoraConfig]:
    """The tensors that PEFT would save for the combined adapter, and its config."""
    names = [f"input{place}" for place in range(len(folders))]
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        adapted.load_adapter(folder, adapter_name=name)
    torch.manual_seed(seed)
    adapted.add_weighted_adapter(names, list(weights), "combined", combination_type=kind, **told)
    return get_peft_model_state_dict(adapted, adapter_name="combined"), adapted.peft_config["combined"]
