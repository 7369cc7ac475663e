"""Bases of other families than Llama, which engines implement by classes of their own.

Most generated adapters for them update the output head or the embeddings: what an engine accepts of these
depends on its class. None has experts: vLLM runs adapters of such models only on a GPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ..cases import ALL, SIZES, saved
from .generated import generated
from .run import HEADS
from .verdicts import Known, known

Targets = tuple[Any, ...]
_HEADS: Targets = ([*ALL, "lm_head"], [*ALL, "embed_tokens"], ["embed_tokens"], ["lm_head"], ALL)
_TIED: Mapping[str, Any] = {"tie_word_embeddings": True}
_OPT: Targets = (
    ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    ["q_proj", "v_proj"],
    ["fc1", "fc2"],
)
_GLM4: Targets = (
    ["q_proj", "k_proj", "v_proj", "o_proj"],
    ["gate_up_proj"],
    ["o_proj", "down_proj"],
    ["o_proj", "gate_up_proj", "down_proj"],
)
_BIG_CODE: Targets = (["c_proj", "c_fc"], ["c_attn"], ["c_fc"], ["c_attn", "c_fc"], ["wte"], ["lm_head"])
_GEMMA: Mapping[str, Any] = {**_TIED, "head_dim": 32, "query_pre_attn_scalar": 32}


@dataclass(frozen=True)
class Family:
    """`name`: the beginning of transformers' classes; `config` overrides that of the small Llama. (`Any`:
    the values of configs.)"""

    name: str
    config: Mapping[str, Any]
    targets: Targets = _HEADS

    def make_base(self, folder: Path) -> Any:
        torch.manual_seed(0)
        config = getattr(transformers, f"{self.name}Config", None) or transformers.Gemma3TextConfig
        model = getattr(transformers, f"{self.name}ForCausalLM")
        return saved(model(config(**{**SIZES, **HEADS, **self.config})).eval().float(), folder)


FAMILIES: Mapping[str, Family] = {
    "Llama, tied": Family("Llama", _TIED),
    "Qwen2": Family("Qwen2", {}),
    "Qwen2, tied": Family("Qwen2", _TIED),
    "Qwen3": Family("Qwen3", {"head_dim": 32}),
    "Qwen3, tied": Family("Qwen3", {"head_dim": 32, **_TIED}),
    "Mistral": Family("Mistral", {"sliding_window": None}),
    "Gemma2": Family("Gemma2", _GEMMA),
    "OLMo2": Family("Olmo2", {}),
    "GLM4": Family(
        "Glm4",
        {
            "head_dim": 32,
            "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        },
        _GLM4,
    ),
    "GPTBigCode": Family(
        "GPTBigCode",
        {"n_embd": 64, "n_inner": 96, "n_layer": 2, "n_head": 2, "n_positions": 64},
        _BIG_CODE,
    ),
    "OPT": Family("OPT", {"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0}, _OPT),
}


def make_known_of(family: Family, folder: Path, seeds: Iterable[int]) -> Known:
    """An adapter for each seed, for a small model of the family."""
    base = family.make_base(folder / "base")
    (folder / "generated").mkdir()
    targets: Callable[[random.Random], Any] = lambda source: source.choice(family.targets)  # noqa: E731
    found = (generated(base, seed, folder / "generated", targets) for seed in seeds)
    return known(base, [one for one in found if one is not None])
