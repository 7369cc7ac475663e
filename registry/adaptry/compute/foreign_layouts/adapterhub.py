"""Converts LoRAs of AdapterHub's adapters library to PEFT's layout: names without the adapter's name, alpha /
r.

Only adapters that its `merge_adapter` computes like PEFT are converted: sums of factors. A gate depends on
the input; its DoRA ignores the scale in a merge; and in a fused attention it has factors for selected
matrices only.
"""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import ADAPTERHUB
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput, PeftAdapter, PeftModule, RenamedTensor
from adaptry.compute.lazy_adapters.lazy_adapter import Json
from adaptry.core.errors import Unsupported

_ROLES = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
_FUSED = frozenset(["c_attn", "in_proj"])
_HEAD = "model_head.safetensors"


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftAdapter:
    """The description of the LoRA in PEFT's terms. Raises `Unsupported` for anything but a sum of factors."""
    adapter = entry.adapter
    for module in adapter.spec.modules:
        _refuse(module, entry)
    modules = tuple(
        PeftModule(module.path, module.rank, module.scale, tuple(_renamed(module)))
        for module in adapter.spec.modules
    )
    notes: tuple[str, ...] = ()
    if _HEAD in adapter.content.sizes:
        notes = (f"the head of {entry.label} ({_HEAD}) can only be loaded by that library, and is left out",)
    return PeftAdapter(modules, _model_fields(adapter.config.fields.get("model_class")), notes)


def _renamed(module: ModuleSpec) -> list[RenamedTensor]:
    return [RenamedTensor(_ROLES[role], name) for role, name in module.tensors.items()]


def _model_fields(model_class: object) -> Json:
    """The fields of PEFT's config for the model's class, if it is one of transformers'."""
    name = str(model_class or "")
    if name.endswith("ForCausalLM"):
        return {"task_type": "CAUSAL_LM"}
    if not name or name.endswith("AdapterModel"):
        return {}
    return {"auto_mapping": {"base_model_class": name, "parent_library": "transformers"}}


def _refuse(module: ModuleSpec, entry: ForeignInput) -> None:
    spec = entry.adapter.spec
    others = sorted(module.tensors.keys() - _ROLES.keys())
    reason = None
    if "dora" in spec.traits:
        reason = "is a DoRA, which the library merges without its scale, but PEFT with it"
    elif "gated" in spec.traits or any(role.startswith("gate") for role in others):
        reason = "is gated: its update depends on the input, which a weight cannot represent"
    elif others:
        reason = f"has {others[0]} at {module.path}, which PEFT does not read"
    elif _is_of_fused(module, entry):
        reason = f"has factors for only some matrices of the fused {module.path}, which PEFT adapts as one"
    if reason:
        raise Unsupported(f"{entry.label} {reason}: {ADAPTERHUB.usage_hint}")


def _is_of_fused(module: ModuleSpec, entry: ForeignInput) -> bool:
    up = entry.adapter.tensors[module.tensors["lora_B"]]
    return module.path.rpartition(".")[2] in _FUSED or up.shape[1] != module.rank
