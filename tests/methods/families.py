"""The model families the corpus is generated on: each as transformers saves it, with a few thousand weights.

Models are seeded, so that a name always gives the same model. A family lists the modules that a corpus
adapter may target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from .layers import Layers


@dataclass(frozen=True)
class Family:
    """A tiny model. `linear`, `embedding`, `norm`, `square`, `biased`: names of modules of that kind, for
    `target_modules`; `square` ones have as many inputs as outputs. `renames`: beginnings of names, and what
    the files have in their place. (`Any`: transformers is not typed.)"""

    build: Callable[[], Any]
    auto: Any
    task: str | None
    linear: list[str]
    embedding: list[str] = field(default_factory=list)
    norm: list[str] = field(default_factory=list)
    square: list[str] = field(default_factory=list)
    biased: list[str] = field(default_factory=list)
    renames: tuple[tuple[str, str], ...] = ()

    def save(self, folder: Path, dtype: torch.dtype) -> Path:
        torch.manual_seed(0)
        model = self.build()
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms as if trained: neither 0 nor 1
                parameter += torch.randn(parameter.shape) * 0.05
        model.to(dtype).save_pretrained(folder)
        return self.renamed(folder)

    def renamed(self, folder: Path) -> Path:
        """Renames the files' tensors that transformers saved to this family's names."""
        if self.renames:
            file = folder / "model.safetensors"
            save_file({self._name(name): tensor for name, tensor in load_file(file).items()}, file)
        return folder

    def load(self, folder: Path) -> Any:
        """The model, in the dtype it was saved in. (`Any`: transformers is not typed.)"""
        return self.auto.from_pretrained(folder, dtype="auto")

    def _name(self, name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in self.renames if name.startswith(old)), name)


def _llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, max_position_embeddings=64, attention_bias=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def _gpt2() -> Any:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=96, n_positions=64)
    return transformers.GPT2LMHeadModel(config)


def _bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=96,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def _t5() -> Any:
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=96, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def _resnet() -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def _qwen2_moe() -> Any:
    config = transformers.Qwen2MoeConfig(
        hidden_size=32, intermediate_size=48, moe_intermediate_size=24, shared_expert_intermediate_size=48,
        num_experts=4, num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.Qwen2MoeForCausalLM(config)


def _llava() -> Any:
    text = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, max_position_embeddings=64,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=95)
    return transformers.LlavaForConditionalGeneration(config)


# transformers 5 holds these names in memory and writes those of version 4.
_LLAVA_IN_MEMORY = (
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("vision_tower.", "model.vision_tower."),
)


def _llava_family(renames: tuple[tuple[str, str], ...] = ()) -> Family:
    """Its language model and its projector are adapted, and modules of its vision tower with the same
    names.
    """
    return Family(
        _llava, transformers.LlavaForConditionalGeneration, "CAUSAL_LM", ["q_proj", "down_proj", "linear_1"],
        ["embed_tokens"], ["input_layernorm", "layer_norm1"], ["q_proj", "o_proj"], ["linear_1", "linear_2"],
        renames,
    )  # fmt: skip


def _layers(*modules: str) -> Family:
    return Family(Layers, Layers, "FEATURE_EXTRACTION", list(modules))


FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        _llama, transformers.AutoModelForCausalLM, "CAUSAL_LM", ["q_proj", "k_proj", "down_proj"],
        ["embed_tokens"], ["input_layernorm", "model.norm"], ["q_proj", "o_proj"], ["q_proj", "v_proj"],
    ),
    "gpt2": Family(
        _gpt2, transformers.AutoModelForCausalLM, "CAUSAL_LM", ["c_attn", "attn.c_proj", "c_fc"],
        ["wte"], ["ln_1", "ln_f"], ["attn.c_proj"], ["c_attn", "c_fc"],
    ),
    "bert": Family(
        _bert, transformers.AutoModelForSequenceClassification, "SEQ_CLS",
        ["query", "value", "intermediate.dense"], ["word_embeddings"], ["LayerNorm"], ["query", "value"],
        ["query", "value"],
    ),
    "t5": Family(
        _t5, transformers.AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM", ["q", "v", "wo"],
        [], ["layer_norm"], ["q", "v"],
    ),
    "resnet": Family(
        _resnet, transformers.AutoModelForImageClassification, None,
        ["layer.0.convolution", "layer.1.convolution", "shortcut.convolution"], [], ["normalization"],
    ),
    "qwen2_moe": Family(
        _qwen2_moe, transformers.AutoModelForCausalLM, "CAUSAL_LM",
        ["q_proj", "k_proj", "shared_expert.down_proj"], ["embed_tokens"], ["input_layernorm"],
        ["q_proj", "o_proj"], ["q_proj", "v_proj"],
    ),
    "llava": _llava_family(),
    "llava_new_names": _llava_family(_LLAVA_IN_MEMORY),
    "attention": _layers("heads"),
    "conv1d": _layers("line"),
    "conv2d": _layers("plane", "point"),
    "conv3d": _layers("space"),
}  # fmt: skip
