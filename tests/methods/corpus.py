"""The conformance corpus: an adapter of every method, as PEFT itself makes and saves it, on every family it supports.

    for case in cases(["loha"]): made = make(case, folder)

Weights are noise on top of PEFT's initialisation, so that no factor is zero and no rotation the identity. Nothing
of ours is used here: what the corpus holds is what the library wrote.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from .families import FAMILIES, Family

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TEXT = ("llama", "gpt2", "bert", "t5", "qwen2_moe")
_LINEAR = ("llama", "bert", "t5", "qwen2_moe")  # families without GPT-2's Conv1D
_DECODERS = ("llama", "gpt2", "qwen2_moe")


@dataclass(frozen=True)
class Variant:
    """A config of a method. `targets`: which of a family's lists goes into `target_modules` (empty: none does).
    (`Any`: PEFT's fields.)"""

    name: str
    families: tuple[str, ...] = _LINEAR
    targets: str = "linear"
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One adapter to make: `method` as PEFT's peft_type in lower case."""

    method: str
    variant: Variant
    family: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.method}-{self.variant.name}-{self.family}-{self.dtype}"


def _plain(
    families: tuple[str, ...] = _LINEAR, targets: str = "linear", **fields: Any
) -> tuple[Variant, ...]:
    return (Variant("plain", families, targets, fields),)


def _prompt(**fields: Any) -> tuple[Variant, ...]:
    return _plain(_DECODERS, "", num_virtual_tokens=5, **fields)


# Small enough for the tiny models, and off the defaults where the merge reads a field.
VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "lora": (
        Variant("plain", _TEXT, fields={"r": 4, "lora_alpha": 11}),
        Variant("conv", ("resnet",), fields={"r": 4, "lora_alpha": 11}),
        Variant("rslora", ("llama",), fields={"r": 4, "lora_alpha": 9, "use_rslora": True}),
        Variant("dora", ("llama", "gpt2", "bert"), fields={"r": 4, "lora_alpha": 11, "use_dora": True}),
        Variant("bias", ("llama", "bert"), fields={"r": 4, "bias": "all"}),
        Variant("lora-bias", ("bert",), fields={"r": 4, "lora_bias": True}),
        Variant("saved-head", ("llama",), fields={"r": 4, "modules_to_save": ["lm_head"]}),
        Variant("tokens", ("llama",), fields={"r": 4, "trainable_token_indices": [1, 5, 3]}),
        Variant("embedding", ("llama", "bert"), "embedding", {"r": 4}),
        Variant("pissa", ("llama",), fields={"r": 4, "init_lora_weights": "pissa"}),
        Variant("olora", ("llama",), fields={"r": 4, "init_lora_weights": "olora"}),
        Variant("experts", ("qwen2_moe",), fields={"r": 2, "target_parameters": [
            "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}),
    ),
    "adalora": _plain(_TEXT, init_r=4, target_r=2, lora_alpha=11, total_step=10),
    "loha": (
        Variant("plain", fields={"r": 3, "alpha": 5}),
        Variant("conv", ("resnet",), fields={"r": 3, "alpha": 5}),
        Variant("effective-conv", ("resnet",), fields={"r": 3, "alpha": 5, "use_effective_conv2d": True}),
    ),
    "lokr": (
        Variant("plain", fields={"r": 3, "alpha": 5}),
        Variant("both-factored", fields={"r": 2, "alpha": 5, "decompose_both": True}),
        Variant("effective-conv", ("resnet",), fields={"r": 2, "alpha": 5, "use_effective_conv2d": True}),
    ),
    "oft": (
        Variant("plain", fields={"oft_block_size": 8}),
        Variant("cayley", ("llama",), fields={"oft_block_size": 8, "use_cayley_neumann": False}),
        Variant("constrained", ("llama",), fields={"oft_block_size": 8, "coft": True, "eps": 1e-3}),
        Variant("shared", ("llama",), fields={"oft_block_size": 8, "block_share": True}),
        Variant("conv", ("resnet",), fields={"oft_block_size": 0, "r": 2}),
    ),
    "boft": (
        *_plain(boft_block_size=4),
        Variant("conv", ("resnet",), fields={"boft_block_size": 4}),
    ),
    "hra": (
        *_plain(r=4),
        Variant("gram-schmidt", ("llama", "bert"), fields={"r": 4, "apply_GS": True}),
        Variant("conv", ("resnet",), fields={"r": 4}),
    ),
    "road": tuple(
        Variant(name, fields={"variant": name, "group_size": 8}) for name in ("road_1", "road_2", "road_4")
    ),
    "ia3": (
        Variant("plain", _TEXT, fields={"feedforward_modules": []}),
        Variant("feed-forward", ("llama",), fields={"feedforward_modules": ["down_proj"]}),
        Variant("conv", ("resnet",), fields={"feedforward_modules": []}),
    ),
    "vera": (
        *_plain(("llama", "gpt2", "bert", "t5"), r=4),
        Variant("from-seed", ("llama",), fields={"r": 4, "save_projection": False}),
    ),
    "pvera": _plain(("llama", "gpt2", "bert", "t5"), r=4),
    "vblora": (
        *_plain(("llama", "gpt2", "bert", "t5"), r=4, num_vectors=12, vector_length=8),
        Variant("top-k-only", ("llama",), fields={
            "r": 4, "num_vectors": 12, "vector_length": 8, "save_only_topk_weights": True}),
    ),
    "randlora": (
        *_plain(r=4),
        Variant("sparse", ("llama",), fields={"r": 4, "sparse": True}),
    ),
    "fourierft": _plain(("llama", "gpt2", "bert", "t5"), n_frequency=20, scaling=30.0),
    "waveft": (
        *_plain(("llama", "bert", "t5"), n_frequency=20),
        Variant("no-idwt", ("llama",), fields={"n_frequency": 20, "use_idwt": False}),
    ),
    "ln_tuning": _plain(("llama", "gpt2", "bert", "t5", "qwen2_moe"), "norm"),
    "miss": (
        *_plain(r=4),
        Variant("bat", ("llama",), "square", {"r": 4, "init_weights": "bat"}),
        Variant("mini", ("llama",), "square", {"r": 4, "mini_r": 8, "init_weights": "mini"}),
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
        *_plain(("llama", "gpt2", "bert", "t5"), r=4, gralora_k=2, alpha=11),
        Variant("hybrid", ("llama",), fields={"r": 4, "gralora_k": 2, "alpha": 11, "hybrid_r": 2}),
    ),
    "psoft": _plain(r=4, psoft_alpha=11),
    "adamss": _plain(("llama", "bert"), r=8, num_subspaces=2),
    "beft": _plain(("llama", "bert"), "biased"),
    "deft": (
        *_plain(r=4),
        Variant("qr", ("llama",), fields={"r": 4, "decomposition_method": "qr"}),
    ),
    "frod": _plain(("llama", "bert"), sparse_rate=0.2, progressbar=False),
    "glora": _plain(("llama", "bert"), r=4),
    "hira": _plain(("llama", "gpt2", "bert", "t5"), r=4),
    "peanut": (
        *_plain(("llama", "bert"), r=4),
        Variant("deep", ("llama",), fields={"r": 4, "depth": 2}),
    ),
    "tinylora": _plain(("llama", "gpt2", "bert"), r=2, u=4),
    "unilora": (
        *_plain(("llama", "gpt2", "bert"), r=2, theta_d_length=32, save_indices=True),
        Variant("from-seed", ("llama",), fields={"r": 2, "theta_d_length": 32}),
    ),
    "trainable_tokens": _plain(("llama", "bert"), "embedding", token_indices=[1, 5, 3]),
    "lily": _plain(("llama",), r=4),
    "poly": _plain(("llama",), r=4, n_tasks=2, n_skills=3),
    "shadow": _plain(("llama",), "", r=4),
    "adaption_prompt": _plain(("llama",), "", adapter_len=4, adapter_layers=1),
    "prompt_tuning": _prompt(),
    "p_tuning": _prompt(encoder_hidden_size=16),
    "prefix_tuning": _prompt(),
    "multitask_prompt_tuning": _prompt(num_tasks=2, num_ranks=2),
    "cpt": _plain(("llama", "gpt2"), "", cpt_token_ids=[1, 2, 3, 4], cpt_mask=[1, 1, 1, 1],
                  cpt_tokens_type_mask=[1, 2, 3, 4]),
    "cartridge": _plain(("llama",), "", num_virtual_tokens=5),
}  # fmt: skip
"""What the corpus has of each method, by its name in `METHODS`. X-LoRA is a router over other adapters: not here."""


def cases(
    methods: Iterable[str] = VARIANTS, families: Iterable[str] = FAMILIES, dtypes: Iterable[str] = DTYPES
) -> Iterator[Case]:
    chosen, dtypes = set(families), tuple(dtypes)
    for method in methods:
        for variant in VARIANTS.get(method, ()):
            for family in variant.families:
                if family in chosen:
                    yield from (Case(method, variant, family, dtype) for dtype in dtypes)


@dataclass(frozen=True)
class Made:
    """Where a case's base and adapter are."""

    case: Case
    base: Path
    adapter: Path

    def merged_by_peft(self, target: Path) -> Path:
        """The checkpoint that PEFT's `merge_and_unload` gives, saved by transformers."""
        if not target.exists():
            with _quiet():
                base = FAMILIES[self.case.family].load(self.base)
                peft.PeftModel.from_pretrained(base, self.adapter).merge_and_unload().save_pretrained(target)
        return target


def make(case: Case, folder: Path) -> Made:
    """The case's base and adapter under `folder`; what is there already is used again."""
    family = FAMILIES[case.family]
    base, adapter = folder / "bases" / f"{case.family}-{case.dtype}", folder / "adapters" / str(case)
    with _quiet():
        if not base.exists():
            family.save(base, DTYPES[case.dtype])
        if not adapter.exists():
            _save_adapter(case, family, base, adapter)
    return Made(case, base, adapter)


def _save_adapter(case: Case, family: Family, base: Path, target: Path) -> None:
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(case.method.upper())]
    fields = dict(case.variant.fields)
    if case.variant.targets:
        fields["target_modules"] = getattr(family, case.variant.targets)
    if case.family == "gpt2" and "fan_in_fan_out" in kind.__dataclass_fields__:
        fields["fan_in_fan_out"] = True
    torch.manual_seed(1)
    model = peft.get_peft_model(family.load(base), kind(task_type=family.task, **fields))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter += (torch.randn(parameter.shape) * 0.1).to(parameter.dtype)
    model.save_pretrained(target)


def _quiet() -> warnings.catch_warnings:
    """PEFT and transformers advise whoever trains; here nobody does."""
    return warnings.catch_warnings(action="ignore")
