"""Families whose experts transformers 5 fuses, and LoRAs of separate experts, as transformers 4 made them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from .families import Family
from .mutations import PREFIX, Files
from .peft_comparison import State

EXPERTS = ("gate_proj", "up_proj", "down_proj")
_SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96,
}  # fmt: skip


def _qwen3_moe() -> transformers.PreTrainedModel:
    config = transformers.Qwen3MoeConfig(
        **_SMALL, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, head_dim=8,
        mlp_only_layers=[0],
    )  # fmt: skip
    return transformers.Qwen3MoeForCausalLM(config)


def _deepseek() -> transformers.PreTrainedModel:
    config = transformers.DeepseekV3Config(
        **{**_SMALL, "num_attention_heads": 2, "num_key_value_heads": 2}, moe_intermediate_size=16,
        n_shared_experts=1, n_routed_experts=4, num_experts_per_tok=2, first_k_dense_replace=1, n_group=1,
        topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
    )  # fmt: skip
    return transformers.DeepseekV3ForCausalLM(config)


def _mixtral() -> transformers.PreTrainedModel:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**_SMALL, num_local_experts=2))


FAMILIES = {
    name: Family(build, transformers.AutoModelForCausalLM, "CAUSAL_LM", [])
    for name, build in (("qwen3_moe", _qwen3_moe), ("deepseek", _deepseek), ("mixtral", _mixtral))
}


def factors(base: Path, ranks: Callable[[str], int]) -> State:
    """Random factors of every matrix on disk for which `ranks` is not 0."""
    torch.manual_seed(1)
    found: State = {}
    for name, weight in load_file(base / "model.safetensors").items():
        path = name.removesuffix(".weight")
        if weight.dim() == 2 and (rank := ranks(path)):
            found[f"{PREFIX}{path}.lora_A.weight"] = torch.randn(rank, weight.shape[1]) * 0.2
            found[f"{PREFIX}{path}.lora_B.weight"] = torch.randn(weight.shape[0], rank) * 0.2
    return found


def random_lora(source: random.Random, base: Path) -> Files:
    """A LoRA of some of the base's matrices, whose config selects them by names or as a text. (PEFT itself no
    longer makes such an adapter.)
    """
    weights = load_file(base / "model.safetensors")
    matrices = [name.removesuffix(".weight") for name in weights if re.search(r"\.(?:mlp|\w+_moe)\.", name)]
    names = sorted({path.rpartition(".")[2] for path in matrices})
    listed = [*source.sample(names, source.randint(1, len(names))), *source.sample(["q_proj", "o_proj"], 1)]
    if source.random() < 0.7:
        listed += {path.rpartition(".")[2] for path in matrices if ".experts." in path}
    listed = sorted(set(listed))
    is_narrow = source.random() < 0.75

    def ranks(path: str) -> int:
        is_inside = not is_narrow or ".experts." in path or path not in matrices
        return 2 if is_inside and path.rpartition(".")[2] in listed else 0

    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none",
        "target_modules": source.choice([listed, listed, "all-linear", f".*({'|'.join(listed)})"]),
        "use_rslora": source.random() < 0.3, "rank_pattern": {}, "alpha_pattern": {},
        "layers_to_transform": None,
    }  # fmt: skip
    if source.random() < 0.3:
        config["alpha_pattern"] = {source.choice([*listed, "gate_up_proj", ".*experts.*"]): 8}
    return Files(factors(base, ranks), config, weights)
