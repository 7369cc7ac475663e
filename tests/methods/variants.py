"""The conformance corpus of each method: its configs, and the modules that they target.

The first config of each method is tried on every family; if PEFT does not support it there, this is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .families import FAMILIES

ALL = tuple(FAMILIES)
_CONVOLUTIONS = ("resnet", "conv1d", "conv2d")
_LLAVA = ("llava", "llava_new_names")
_DECODERS = ("llama", "gpt2", "qwen2_moe", "llava")


@dataclass(frozen=True)
class Variant:
    """A config of a method. `targets`: the family's list that becomes `target_modules` (empty: none). (`Any`:
    PEFT's fields.)
    """

    name: str
    families: tuple[str, ...] = ALL
    targets: str = "linear"
    fields: Mapping[str, Any] = field(default_factory=dict)


def _plain(families: tuple[str, ...] = ALL, targets: str = "linear", **fields: Any) -> tuple[Variant, ...]:
    return (Variant("plain", families, targets, fields),)


def _prompt(**fields: Any) -> tuple[Variant, ...]:
    return _plain(_DECODERS, "", num_virtual_tokens=5, **fields)


# Small enough for the tiny models, and different from the default in each field that the merge reads.
VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "lora": (
        Variant("plain", fields={"r": 4, "lora_alpha": 11}),
        Variant("rslora", ("llama",), fields={"r": 4, "lora_alpha": 9, "use_rslora": True}),
        Variant("dora", ("llama", "gpt2", "bert", *_LLAVA, *_CONVOLUTIONS, "conv3d"),
                fields={"r": 4, "lora_alpha": 11, "use_dora": True}),
        Variant("bias", ("llama", "bert", "attention", "conv3d"), fields={"r": 4, "bias": "all"}),
        Variant("lora-bias", ("bert",), fields={"r": 4, "lora_bias": True}),
        Variant("saved-head", ("llama", *_LLAVA), fields={"r": 4, "modules_to_save": ["lm_head"]}),
        Variant("tokens", ("llama", *_LLAVA), fields={"r": 4, "trainable_token_indices": [1, 5, 3]}),
        Variant("embedding", ("llama", "bert", *_LLAVA), "embedding", {"r": 4}),
        Variant("pissa", ("llama",), fields={"r": 4, "init_lora_weights": "pissa"}),
        Variant("olora", ("llama",), fields={"r": 4, "init_lora_weights": "olora"}),
        Variant("experts", ("qwen2_moe",), fields={"r": 2, "target_parameters": [
            "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}),
    ),
    "adalora": _plain(init_r=4, target_r=2, lora_alpha=11, total_step=10),
    "loha": (
        Variant("plain", fields={"r": 3, "alpha": 5}),
        Variant("effective-conv", _CONVOLUTIONS, fields={"r": 3, "alpha": 5, "use_effective_conv2d": True}),
    ),
    "lokr": (
        Variant("plain", fields={"r": 3, "alpha": 5}),
        Variant("both-factored", fields={"r": 2, "alpha": 5, "decompose_both": True}),
        Variant("effective-conv", _CONVOLUTIONS, fields={"r": 2, "alpha": 5, "use_effective_conv2d": True}),
    ),
    "oft": (
        Variant("plain", fields={"oft_block_size": 8}),
        Variant("cayley", ("llama",), fields={"oft_block_size": 8, "use_cayley_neumann": False}),
        Variant("constrained", ("llama",), fields={"oft_block_size": 8, "coft": True, "eps": 1e-3}),
        Variant("shared", ("llama",), fields={"oft_block_size": 8, "block_share": True}),
        Variant("conv", ("resnet",), fields={"oft_block_size": 0, "r": 2}),
    ),
    "boft": _plain(boft_block_size=4),
    "hra": (
        *_plain(r=4),
        Variant("gram-schmidt", ("llama", "bert"), fields={"r": 4, "apply_GS": True}),
    ),
    "road": tuple(
        Variant(name, fields={"variant": name, "group_size": 8}) for name in ("road_1", "road_2", "road_4")
    ),
    "ia3": (
        Variant("plain", fields={"feedforward_modules": []}),
        Variant("feed-forward", ("llama",), fields={"feedforward_modules": ["down_proj"]}),
    ),
    "vera": (
        *_plain(r=4),
        Variant("from-seed", ("llama",), fields={"r": 4, "save_projection": False}),
    ),
    "pvera": _plain(r=4),
    "vblora": (
        *_plain(r=4, num_vectors=12, vector_length=8),
        Variant("top-k-only", ("llama",), fields={
            "r": 4, "num_vectors": 12, "vector_length": 8, "save_only_topk_weights": True}),
    ),
    "randlora": (
        *_plain(r=4),
        Variant("sparse", ("llama",), fields={"r": 4, "sparse": True}),
    ),
    "fourierft": _plain(n_frequency=20, scaling=30.0),
    "waveft": (
        *_plain(n_frequency=20),
        Variant("no-idwt", ("llama",), fields={"n_frequency": 20, "use_idwt": False}),
    ),
    "ln_tuning": _plain(ALL, "norm"),
    "miss": (
        *_plain(r=4),
        Variant("bat", ("llama",), "square", {"r": 4, "init_weights": "bat"}),
        Variant("mini", ("llama",), "square", {"r": 4, "mini_r": 8, "init_weights": "mini"}),
    ),
    "bone": (
        *_plain(r=4),
        Variant("bat", ("llama",), "square", {"r": 4, "init_weights": "bat"}),
    ),
    "shira": _plain(r=2, random_seed=3),
    "supertuning": (
        *_plain(sparsity=0.9),
        Variant("with-lora", ("llama",), fields={"sparsity": 0.9, "r": 4, "lora_alpha": 8}),
    ),
    "c3a": _plain(block_size=16),
    "delora": _plain(r=4),
    "osf": _plain(effective_rank=4),
    "gralora": (
        *_plain(r=4, gralora_k=2, alpha=11),
        Variant("hybrid", ("llama",), fields={"r": 4, "gralora_k": 2, "alpha": 11, "hybrid_r": 2}),
    ),
    "psoft": _plain(r=4, psoft_alpha=11),
    "adamss": _plain(r=8, num_subspaces=2),
    "beft": _plain(ALL, "biased"),
    "deft": (
        *_plain(r=4),
        Variant("qr", ("llama",), fields={"r": 4, "decomposition_method": "qr"}),
    ),
    "frod": _plain(sparse_rate=0.2, progressbar=False),
    "glora": _plain(r=4),
    "hira": _plain(r=4),
    "peanut": (
        *_plain(r=4),
        Variant("deep", ("llama",), fields={"r": 4, "depth": 2}),
    ),
    "tinylora": _plain(r=2, u=4),
    "unilora": (
        *_plain(r=2, theta_d_length=32, save_indices=True),
        Variant("from-seed", ("llama",), fields={"r": 2, "theta_d_length": 32}),
    ),
    "trainable_tokens": _plain(ALL, "embedding", token_indices=[1, 5, 3]),
    "lily": _plain(r=4),
    "poly": _plain(r=4, n_tasks=2, n_skills=3),
    "xlora": _plain(_DECODERS, "", hidden_size=32, xlora_depth=2, xlora_size=8),
    "shadow": _plain(_DECODERS, "", r=4),
    "adaption_prompt": _plain(_DECODERS, "", adapter_len=4, adapter_layers=1),
    "prompt_tuning": _prompt(),
    "p_tuning": _prompt(encoder_hidden_size=16),
    "prefix_tuning": _prompt(),
    "multitask_prompt_tuning": _prompt(num_tasks=2, num_ranks=2),
    "cpt": _plain(_DECODERS, "", cpt_token_ids=[1, 2, 3, 4], cpt_mask=[1, 1, 1, 1],
                  cpt_tokens_type_mask=[1, 2, 3, 4]),
    "cartridge": _plain(_DECODERS, "", num_virtual_tokens=5),
}  # fmt: skip
"""What the corpus has of each method, by its name in `METHODS`."""
