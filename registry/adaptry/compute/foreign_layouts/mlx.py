"""Converts mlx-lm's LoRA and DoRA to PEFT's layout: transposes factors, and writes `scale` as `lora_alpha /
r`.

The numbers are unchanged, bit for bit. Experts of a layer are not converted, since only MLX's copies of a
model have their names. An update of an embedding that is also the output head is not converted either: mlx-lm
changes both, PEFT only the input.
"""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput, PeftAdapter, PeftModule, RenamedTensor
from adaptry.core.errors import CheckFailed, Unsupported

_LINEAR = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
_EMBEDDING = {"lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"}


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftAdapter:
    """The description of the adapter in PEFT's terms. Raises `Unsupported` if PEFT cannot do the same as
    mlx-lm, and `CheckFailed` if the base is needed.
    """
    spec, label = entry.adapter.spec, entry.label
    is_dora = "dora" in spec.traits
    for module in spec.modules:
        _refuse(module, label, base, is_dora)
    modules = tuple(
        PeftModule(module.path, module.rank, module.scale, tuple(_renamed(module))) for module in spec.modules
    )
    return PeftAdapter(modules, {"task_type": "CAUSAL_LM", "use_dora": is_dora})


def _renamed(module: ModuleSpec) -> list[RenamedTensor]:
    roles = _EMBEDDING if module.kind == "embedding" else _LINEAR
    return [RenamedTensor(roles[role], name, role != "m") for role, name in module.tensors.items()]


def _refuse(module: ModuleSpec, label: str, base: BaseRecord | None, is_dora: bool) -> None:
    instead = "merge it with mlx_lm.fuse"
    if module.kind not in ("linear", "embedding"):
        raise Unsupported(
            f"{label} changes the experts of a layer ({module.path}), whose names only MLX's copies of a"
            f" model have, so it cannot be converted to PEFT's layout: {instead}"
        )
    if is_dora != ("m" in module.tensors) or (is_dora and module.kind == "embedding"):
        raise Unsupported(
            f"{label} is a DoRA, but {module.path} has no magnitudes that PEFT would read: {instead}"
        )
    if module.kind != "embedding":
        return
    if base is None:
        raise CheckFailed(
            f"{label} updates {module.path}, and only the base shows whether that is also the output head:"
            " pass"
            " --base NAME (a registered base) or --base ./DIR, from which headers and config are read"
        )
    if base.facts.get("tie_word_embeddings"):
        raise Unsupported(
            f"{label} updates an embedding that is also the output head, which mlx-lm changes in both places"
            f" but PEFT in one: {instead}"
        )
