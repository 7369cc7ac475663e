"""Adapters of methods that add an update to a weight, one for each form that their configs allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from .on_base import LINEAR, Pair  # noqa: E402  (needs torch and PEFT)

CONV1D = ["c_attn", "attn.c_proj", "c_fc"]  # attn.c_proj is square
KERNELS = ["conv", "one", "linear"]
QUERY = "model.layers.0.self_attn.q_proj"


def _bank(**fields: Any) -> Any:
    return peft.VBLoRAConfig(r=3, num_vectors=12, vector_length=8, **fields)


def _waves(**fields: Any) -> Any:
    return peft.WaveFTConfig(n_frequency=50, n_frequency_pattern={"q_proj": 40, "c_attn": 40}, **fields)


# Each for `linear`, a Llama with grouped queries, and for GPT-2's Conv1D if PEFT supports the method on it.
_ON_BOTH: dict[str, Callable[[], Any]] = {
    "adalora": lambda: peft.AdaLoraConfig(init_r=6, target_r=4, lora_alpha=7, total_step=10),
    "vera": lambda: peft.VeraConfig(r=6),
    "vera from a seed": lambda: peft.VeraConfig(r=6, save_projection=False, projection_prng_key=3),
    "pvera": lambda: peft.PveraConfig(r=6),
    "pvera from a seed": lambda: peft.PveraConfig(r=6, save_projection=False),
    "vblora": lambda: _bank(topk=2),
    "vblora of choices": lambda: _bank(topk=3, save_only_topk_weights=True),
    "randlora": lambda: peft.RandLoraConfig(r=5, randlora_alpha=10),
    "randlora from a seed": lambda: peft.RandLoraConfig(r=5, save_projection=False, projection_prng_key=2),
    "randlora sparse": lambda: peft.RandLoraConfig(r=5, save_projection=False, sparse=True),
    "randlora very sparse": lambda: peft.RandLoraConfig(r=5, save_projection=False, very_sparse=True),
    "fourierft": lambda: peft.FourierFTConfig(
        n_frequency=50, n_frequency_pattern={"q_proj": 40, "c_attn": 40}),
    "waveft": _waves,
    "waveft of db2": lambda: _waves(wavelet_family="db2"),
    "waveft of sym7": lambda: _waves(wavelet_family="sym7", scaling=3.0),
    "waveft untransformed": lambda: _waves(use_idwt=False),
    "waveft in proportion": lambda: _waves(proportional_parameters=True),
    "gralora": lambda: peft.GraloraConfig(r=8, alpha=10),
    "gralora hybrid": lambda: peft.GraloraConfig(r=8, alpha=10, gralora_k=4, hybrid_r=3),
    "tinylora": lambda: peft.TinyLoraConfig(r=2, u=8),
    "tinylora in groups": lambda: peft.TinyLoraConfig(r=2, u=8, weight_tying=0.5),
    "tinylora in one group": lambda: peft.TinyLoraConfig(r=2, u=8, weight_tying=1.0),
    "unilora": lambda: peft.UniLoraConfig(r=2, theta_d_length=32, save_indices=True),
}  # fmt: skip
_ON_LINEAR: dict[str, Callable[[], Any]] = {
    "loha": lambda: peft.LoHaConfig(r=3, alpha=5, rank_pattern={"q_proj": 2}),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=5),
    "lokr of factors": lambda: peft.LoKrConfig(
        r=1, alpha=5, decompose_both=True, alpha_pattern={"q_proj": 3}),
    "lokr of whole matrices": lambda: peft.LoKrConfig(r=64, alpha=5),
    "miss": lambda: peft.MissConfig(r=8),
    "miss with a rest": lambda: peft.MissConfig(r=7),
    "miss bat": lambda: peft.MissConfig(r=8, init_weights="bat"),
    "miss mini": lambda: peft.MissConfig(r=8, mini_r=4, init_weights="mini"),
    "delora": lambda: peft.DeloraConfig(r=4, rank_pattern={"q_proj": 2}),
    "c3a": lambda: peft.C3AConfig(block_size=16, block_size_pattern={"q_proj": 8}),
    "shira": lambda: peft.ShiraConfig(r=2),
    "supertuning": lambda: peft.SupertuningConfig(sparsity=0.9),
    "supertuning with lora": lambda: peft.SupertuningConfig(sparsity=0.9, r=2, lora_alpha=3.0),
    "supertuning without places": lambda: peft.SupertuningConfig(
        sparsity=0.9, save_precomputed_indices=False),
    "supertuning of the smallest": lambda: peft.SupertuningConfig(
        sparsity=0.9, select_top=False, save_precomputed_indices=False
    ),
}  # fmt: skip
_ON_OTHERS: dict[str, tuple[str, list[str], Callable[[], Any]]] = {
    "adalora pruned": (
        "llama", LINEAR, lambda: peft.AdaLoraConfig(
            init_r=4, target_r=2, total_step=10,
            rank_pattern={f"{QUERY}.lora_E": [True, False, True, False]})),
    "adalora of which a module was removed": (
        "llama", LINEAR, lambda: peft.AdaLoraConfig(
            init_r=4, target_r=2, total_step=10, rank_pattern={f"{QUERY}.lora_E": [False] * 4})),
    "adalora of kernels": (
        "blocks", KERNELS, lambda: peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=7, total_step=10)),
    "loha of kernels": ("blocks", [*KERNELS, "line"], lambda: peft.LoHaConfig(r=3, alpha=5)),
    "loha of effective kernels": (
        "blocks", [*KERNELS, "line"], lambda: peft.LoHaConfig(r=3, alpha=5, use_effective_conv2d=True)),
    "lokr of kernels": ("blocks", [*KERNELS, "line"], lambda: peft.LoKrConfig(r=1, alpha=5)),
    "lokr of effective kernels": (
        "blocks", KERNELS, lambda: peft.LoKrConfig(r=1, alpha=5, use_effective_conv2d=True)),
    "lokr of whole kernels": ("blocks", KERNELS, lambda: peft.LoKrConfig(r=9, alpha=5)),
    "tinylora of an embedding": ("llama", [*LINEAR, "embed_tokens"], lambda: peft.TinyLoraConfig(r=2, u=8)),
}  # fmt: skip

CASES: dict[str, tuple[str, list[str], Callable[[], Any]]] = {
    **{name: ("llama", LINEAR, config) for name, config in {**_ON_BOTH, **_ON_LINEAR}.items()},
    **{f"{name} of conv1d": ("gpt2", CONV1D, config) for name, config in _ON_BOTH.items()},
    **_ON_OTHERS,
}


def pair_of(folder: Path, name: str, dtype: Any = torch.float32, **changed: Any) -> Pair:
    """A base and its adapter; the fields `changed` of its config differ from the case's."""
    kind, targets, make = CASES[name]
    config = make()
    config.target_modules = set(targets)
    for field, value in changed.items():
        setattr(config, field, value)
    return Pair(folder, kind, config, dtype)
