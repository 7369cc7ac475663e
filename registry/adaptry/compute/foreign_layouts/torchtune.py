"""Converts torchtune's LoRA with its own names to PEFT's layout, with transformers' names and order of rows.

In the rotary embedding, torchtune pairs neighbouring rows of queries and keys, transformers the two halves of
a head. So rows of `lora_B` (and of a DoRA's magnitudes) are reordered like `tune_to_hf` reorders the
weight's. The models below are stored like this; Qwen2's rows are not reordered.
"""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import TORCHTUNE
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput, PeftAdapter, PeftModule, RenamedTensor
from adaptry.core.errors import CheckFailed, Unsupported

_ROLES = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
_HEADS = {"q_proj": "heads", "k_proj": "kv_heads"}
_REORDERED = frozenset(["llama", "mistral", "gemma", "gemma2"])
_AS_THEY_ARE = frozenset(["qwen2"])


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftAdapter:
    """The description of the adapter in PEFT's terms. Raises `CheckFailed` (no base, which determines the
    order of rows; no scale), `Unsupported` (a model whose layout in torchtune is unknown here).
    """
    missing = [key for key in ("r", "lora_alpha") if key not in entry.adapter.config.fields]
    if missing:
        raise CheckFailed(
            f"{entry.label} has no {' and no '.join(missing)} in adapter_config.json, so its scale is"
            " unknown: add lora_rank of torchtune's config as r, and its lora_alpha as lora_alpha"
        )
    if base is None:
        raise CheckFailed(
            f"{entry.label} has torchtune's names, and only the base determines torchtune's order of the"
            " rows of queries and keys: pass --base NAME (a registered base) or --base ./DIR, from which"
            " headers and config are read"
        )
    is_reordered = _is_reordered(base, entry.label)
    _refuse_fused(entry, base)
    modules = tuple(
        PeftModule(
            module.path,
            module.rank,
            module.scale,
            tuple(_renamed(module, base if is_reordered else None, entry.label)),
        )
        for module in entry.adapter.spec.modules
    )
    is_dora = "dora" in entry.adapter.spec.traits
    return PeftAdapter(modules, {"task_type": "CAUSAL_LM", "use_dora": is_dora})


def _is_reordered(base: BaseRecord, label: str) -> bool:
    model = str(base.facts.get("model_type"))
    if model not in _REORDERED | _AS_THEY_ARE:
        known = ", ".join(sorted(_REORDERED | _AS_THEY_ARE))
        raise Unsupported(
            f"{label} is torchtune's LoRA for a {model}, but torchtune's layout is known here for"
            f" {known} only: {TORCHTUNE.usage_hint}"
        )
    return model in _REORDERED


def _refuse_fused(entry: ForeignInput, base: BaseRecord) -> None:
    """Raises `Unsupported` if torchtune adapts a part of a weight that PEFT can only adapt as a whole."""
    names = {name.rpartition(".")[0].rpartition(".")[2] for name in base.tensors}
    for module in entry.adapter.spec.modules:
        last = module.path.rpartition(".")[2]
        whole = "qkv_proj" if last in ("q_proj", "k_proj", "v_proj") else "gate_up_proj"
        if last not in names and last != "lm_head" and whole in names:
            raise Unsupported(
                f"{entry.label} adapts {module.path} separately, but in the base it is part of {whole}, which"
                f" PEFT adapts as one: {TORCHTUNE.usage_hint}"
            )


def _renamed(module: ModuleSpec, base: BaseRecord | None, label: str) -> list[RenamedTensor]:
    """`base` is the model whose rows are reordered by head; None if rows are unchanged."""
    fact = _HEADS.get(module.path.rpartition(".")[2])
    order = _order(module, int(base.facts.get(fact) or 0), label) if base and fact else None
    return [
        RenamedTensor(_ROLES[role], name, rows=None if role == "A" else order)
        for role, name in module.tensors.items()
    ]


def _order(module: ModuleSpec, heads: int, label: str) -> tuple[int, ...]:
    """The row of torchtune for each row of transformers: in each head, the even rows and then the odd
    ones.
    """
    if not heads or module.fan_out % (2 * heads):
        raise CheckFailed(
            f"{label}: {module.path} has {module.fan_out:,} outputs, which is not a multiple of the base's"
            f" {heads} heads: this is not the base it was trained on"
        )
    size = module.fan_out // heads
    return tuple(
        head * size + pair * 2 + half
        for head in range(heads)
        for half in range(2)
        for pair in range(size // 2)
    )
