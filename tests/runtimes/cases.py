"""Adapters of a tiny Llama saved by PEFT, one for each feature that engines treat differently, and PEFT's
results with them.

The factors are random and large, so that an ignored scale or module is detected.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.exporting.options import ExportOptions

VOCABULARY = 320
PROMPTS = ("w5 w9 w11 w40 w7 w100", "w300 w17", "w8")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Base:
    """The model in memory, and as a checkpoint folder with a tokenizer of one word per token."""

    model: PreTrainedModel
    folder: Path

    @property
    def setting(self) -> ExportOptions:
        return ExportOptions(fingerprint(open_checkpoint(self.folder)), lambda: open_checkpoint(self.folder))


@dataclass(frozen=True)
class Case:
    """`config`: fields of PEFT's config, which override a plain LoRA of every linear layer. The saved adapter
    is then changed: `fields` of its config, `tensors` of its file. If PEFT itself then drops something,
    `as_of` is the case that was trained.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    kind: type[Any] = LoraConfig
    fields: Mapping[str, Any] = field(default_factory=dict)
    tensors: Change = dict
    as_of: str = ""


def renamed(old: str, new: str) -> Change:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def without(*parts: str) -> Change:
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)
    }


def with_another(part: str) -> Change:
    """Adds a tensor next to the factors of a module of the first layer."""
    at = "base_model.model.model.layers.0.self_attn.o_proj."
    return lambda tensors: {**tensors, f"{at}{part}.weight": torch.ones(8, 8)}


CASES: dict[str, Case] = {
    "plain": Case(),
    "attention only": Case({"target_modules": ["q_proj", "v_proj"]}),
    "keys only": Case({"target_modules": ["k_proj"]}),
    "keys and values": Case({"target_modules": ["k_proj", "v_proj"]}),
    "queries only": Case({"target_modules": ["q_proj"]}),
    "gates only": Case({"target_modules": ["gate_proj"]}),
    "ups only": Case({"target_modules": ["up_proj"]}),
    "one layer": Case({"layers_to_transform": [1]}),
    "much at once": Case({"target_modules": ["q_proj", "up_proj"], "use_rslora": True,
                          "rank_pattern": {"up_proj": 5}, "layers_to_transform": [1]}),
    "all-linear": Case({"target_modules": "all-linear"}),
    "a pattern of modules": Case({"target_modules": r".*\.(q_proj|k_proj|v_proj)"}),
    "rslora": Case({"use_rslora": True}),
    "alpha_pattern": Case({"alpha_pattern": {"v_proj": 32, "layers.1.mlp.up_proj": 2}}),
    "rank_pattern": Case({"rank_pattern": {"o_proj": 3}}),
    "rank_pattern with the alphas": Case({"rank_pattern": {"o_proj": 4}, "alpha_pattern": {"o_proj": 4}}),
    "rank_pattern with rslora": Case({"use_rslora": True, "rank_pattern": {"q_proj": 12}}),
    "a fraction of alpha": Case({"lora_alpha": 6.5}),
    "twice the scale": Case({"lora_alpha": 16}),
    "dora": Case({"use_dora": True}),
    "bias lora_only": Case({"bias": "lora_only"}),
    "lora_bias": Case({"lora_bias": True}),
    "a saved head": Case({"modules_to_save": ["lm_head"]}),
    "saved norms": Case({"modules_to_save": ["input_layernorm"]}),
    "the head": Case({"target_modules": [*ALL, "lm_head"]}),
    "embeddings": Case({"target_modules": [*ALL, "embed_tokens"]}),
    "the head alone": Case({"target_modules": [*ALL, "lm_head"]}, tensors=without("base_layer")),
    "embeddings alone": Case({"target_modules": [*ALL, "embed_tokens"]}, tensors=without("base_layer")),
    "rows of the embeddings": Case({"trainable_token_indices": {"embed_tokens": [3, 5]}}),
    "fan_in_fan_out": Case(fields={"fan_in_fan_out": True}),
    "gaussian": Case({"init_lora_weights": "gaussian"}),
    "orthogonal": Case({"init_lora_weights": "orthogonal"}),
    "pissa": Case({"init_lora_weights": "pissa"}),
    "olora": Case({"init_lora_weights": "olora"}),
    "weight tying": Case(fields={"ensure_weight_tying": True}),
    "alora": Case({"task_type": "CAUSAL_LM"}, fields={"alora_invocation_tokens": [5, 9]}),
    "a large rank": Case({"r": 24, "target_modules": ["o_proj"]}),
    "a rank above 256": Case({"r": 300, "target_modules": ["o_proj"]}),
    "another prefix": Case(
        tensors=renamed("base_model.model.model.", "base_model.model.language_model."), as_of="plain"),
    "no prefix": Case(tensors=renamed("base_model.model.", ""), as_of="plain"),
    "names of another model": Case(tensors=renamed("self_attn", "attention"), as_of="plain"),
    "a layer the base has not": Case(tensors=renamed("layers.1.", "layers.7."), as_of="plain"),
    "a module the base has not": Case(
        tensors=renamed("o_proj", "dense"), fields={"target_modules": [*ALL, "dense"]}, as_of="plain"),
    "a tensor more": Case(tensors=with_another("lora_C")),
    "a factor missing": Case(tensors=without("layers.0.mlp.down_proj.lora_B")),
    "a factor of a packed module missing": Case(
        tensors=without("layers.0.mlp.up_proj.lora_B"), as_of="plain"),
    "that factor missing, with a scale": Case(
        {"lora_alpha": 16}, tensors=without("layers.0.mlp.up_proj.lora_B"), as_of="twice the scale"),
    "the other factor of a packed module missing": Case(
        tensors=without("layers.0.mlp.up_proj.lora_A"), as_of="plain"),
    "a module missing": Case(tensors=without("layers.0.self_attn.v_proj")),
    "no alpha": Case(fields={"lora_alpha": None}),
    "no rank": Case(fields={"r": None}),
    "no modules": Case(fields={"target_modules": None}, as_of="plain"),
    "an empty list of modules": Case(fields={"target_modules": []}, as_of="plain"),
    "modules left out": Case(fields={"exclude_modules": ["v_proj"]}, as_of="plain"),
    "a bias only listed": Case(fields={"bias": "lora_only"}),
    "a saved head only listed": Case(fields={"modules_to_save": ["lm_head"]}, as_of="plain"),
    "the adapter's name inside": Case(tensors=renamed(".weight", ".default.weight")),
    "another adapter's name inside": Case(tensors=renamed(".weight", ".foo.weight"), as_of="plain"),
    "the prefix twice": Case(tensors=renamed("base_model.model.model", "base_model.model." * 2 + "model"),
                             as_of="plain"),
    "torch.compile's names": Case(tensors=renamed("self_attn.", "self_attn._orig_mod."), as_of="plain"),
    "float64": Case(tensors=lambda tensors: {name: each.double() for name, each in tensors.items()}),
    "fewer modules listed": Case(fields={"target_modules": ["q_proj"]}, as_of="plain"),
    "loha": Case({"r": 2, "alpha": 4, "target_modules": ["q_proj", "o_proj"]}, LoHaConfig),
    "ia3": Case({"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}, IA3Config),
}  # fmt: skip


SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "max_position_embeddings": 128,
}


def made_base(folder: Path, **sizes: int) -> Base:
    torch.manual_seed(0)
    return saved(LlamaForCausalLM(LlamaConfig(**{**SIZES, **sizes})).eval(), folder)


def saved(model: PreTrainedModel, folder: Path, **fields: Any) -> Base:
    """The model on disk, its config with `fields` and as transformers 4 has it, which engines read."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 10000.0, **fields}))
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, "w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    words = {"eos_token": "w2", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    return Base(model, folder)


def made(base: Base, case: Case, folder: Path) -> Path:
    """The case's adapter, saved by PEFT and then changed."""
    torch.manual_seed(1)
    plain = {"r": 8, "lora_alpha": 8, "target_modules": ALL} if case.kind is LoraConfig else {}
    tuned = get_peft_model(copy.deepcopy(base.model), case.kind(**{**plain, **case.config}))
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad and "lora_magnitude" not in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    tuned.save_pretrained(str(folder))
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    changed = {**saved_fields(folder), **case.fields}
    config.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
    save_file(case.tensors(load_file(weights)), weights, metadata={"format": "pt"})
    return folder


def saved_fields(folder: Path) -> dict[str, Any]:
    """The config that PEFT saved, with the lists that it keeps as sets in one order. (`Any`: JSON.)"""
    fields = json.loads((folder / "adapter_config.json").read_text())
    lists = ("target_modules", "exclude_modules")
    return {key: sorted(value) if key in lists and isinstance(value, list) else value
            for key, value in fields.items()}  # fmt: skip


def trained_odds(base: Base, adapter: Path) -> torch.Tensor:
    """PEFT's log-probabilities of every possible next token for each prompt."""
    return odds(PeftModel.from_pretrained(copy.deepcopy(base.model), str(adapter)).eval())


@torch.no_grad()
def odds_with(base: Base, updates: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The same, with this update added to the base's weights."""
    model = copy.deepcopy(base.model)
    weights = model.state_dict()
    for name, update in updates.items():
        weights[name] += update
    return odds(model)


@torch.no_grad()
def odds(model: Any) -> torch.Tensor:
    """(`Any`: transformers' model or PEFT's.)"""
    asked = [torch.tensor([[int(word[1:]) for word in prompt.split()]]) for prompt in PROMPTS]
    return torch.stack([model(words).logits[0, -1].log_softmax(-1) for words in asked])
