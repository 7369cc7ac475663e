"""LoRA of AdapterHub's adapters library in PEFT's layout: names without the adapter's own, alpha over r.

Only what its `merge_adapter` computes as PEFT does: factors that are added. A gate depends on the input;
its DoRA leaves the scale out of the merge; in a fused attention it has factors of the chosen matrices only.
"""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import ADAPTERHUB
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_lora import ForeignInput, PeftLora, PeftModule, RenamedTensor
from adaptry.compute.lazy_adapters.lazy_adapter import Json
from adaptry.core.errors import Unsupported

_ROLES = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
_FUSED = frozenset(["c_attn", "in_proj"])
_HEAD = "model_head.safetensors"


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftLora:
    """Raises `Unsupported` for what is no sum of factors."""
    adapter = entry.adapter
    for module in adapter.spec.modules:
        _refuse(module, entry)
    modules = tuple(
        PeftModule(module.path, module.rank, module.scale, tuple(_renamed(module)))
        for module in adapter.spec.modules
    )
    notes: tuple[str, ...] = ()
    if _HEAD in adapter.content.sizes:
        notes = (f"the head of {entry.label} ({_HEAD}) is the library's, and does not come along",)
    return PeftLora(modules, _model_fields(adapter.config.fields.get("model_class")), notes)


def _renamed(module: ModuleSpec) -> list[RenamedTensor]:
    return [RenamedTensor(_ROLES[role], name) for role, name in module.tensors.items()]


def _model_fields(model_class: object) -> Json:
    """What PEFT's config says of the class of the model, where it is one of transformers'."""
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
        reason = "is a DoRA, which the library merges without its scale and PEFT with it"
    elif "gated" in spec.traits or any(role.startswith("gate") for role in others):
        reason = "is gated: how much it adds depends on the input, and no weight can hold that"
    elif others:
        reason = f"has {others[0]} at {module.path}, which is no factor that PEFT reads"
    elif _is_of_fused(module, entry):
        reason = f"has factors of some matrices of the fused {module.path}, which PEFT adapts as one"
    if reason:
        raise Unsupported(f"{entry.label} {reason}: {ADAPTERHUB.usage_hint}")


def _is_of_fused(module: ModuleSpec, entry: ForeignInput) -> bool:
    up = entry.adapter.tensors[module.tensors["lora_B"]]
    return module.path.rpartition(".")[2] in _FUSED or up.shape[1] != module.rank
