"""mlx-lm's LoRA and DoRA in PEFT's layout: factors turned round, its one `scale` as `lora_alpha` over `r`.

The numbers stay as they are, bit for bit. A layer's experts are not brought over, since only MLX's own
copies of a model have their names; nor is an update of an embedding that is the output head too: mlx-lm
changes both, PEFT the input only.
"""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_lora import ForeignInput, PeftLora, PeftModule, RenamedTensor
from adaptry.core.errors import CheckFailed, Unsupported

_LINEAR = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
_EMBEDDING = {"lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"}


def describe(entry: ForeignInput, base: BaseRecord | None, part: str | None) -> PeftLora:
    """Raises `Unsupported` for what PEFT cannot do as mlx-lm, `CheckFailed` where the base must tell."""
    spec, label = entry.adapter.spec, entry.label
    is_dora = "dora" in spec.traits
    for module in spec.modules:
        _refuse(module, label, base, is_dora)
    modules = tuple(
        PeftModule(module.path, module.rank, module.scale, tuple(_renamed(module))) for module in spec.modules
    )
    return PeftLora(modules, {"task_type": "CAUSAL_LM", "use_dora": is_dora})


def _renamed(module: ModuleSpec) -> list[RenamedTensor]:
    roles = _EMBEDDING if module.kind == "embedding" else _LINEAR
    return [RenamedTensor(roles[role], name, role != "m") for role, name in module.tensors.items()]


def _refuse(module: ModuleSpec, label: str, base: BaseRecord | None, is_dora: bool) -> None:
    instead = "merge it with mlx_lm.fuse"
    if module.kind not in ("linear", "embedding"):
        raise Unsupported(
            f"{label} changes the experts of a layer ({module.path}), whose names only MLX's own copies of a"
            f" model have, so it is not brought into PEFT's layout: {instead}"
        )
    if is_dora != ("m" in module.tensors) or (is_dora and module.kind == "embedding"):
        raise Unsupported(
            f"{label} is a DoRA, and {module.path} has no magnitudes that PEFT would read: {instead}"
        )
    if module.kind != "embedding":
        return
    if base is None:
        raise CheckFailed(
            f"{label} updates {module.path}, and only the base says whether that is the output head too: say"
            " --base NAME (a registered one) or --base ./DIR, of which headers and config are read"
        )
    if base.facts.get("tie_word_embeddings"):
        raise Unsupported(
            f"{label} updates an embedding that is the output head too, which mlx-lm changes in both places"
            f" and PEFT in one: {instead}"
        )
