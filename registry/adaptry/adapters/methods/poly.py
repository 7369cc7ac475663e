"""Poly (arXiv 2202.13914, 2211.03831; PEFT `tuners/poly`): LoRA skills, mixed by a router for the task."""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes, common_number


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """A is [splits, skills, in/splits, rank], B [splits, skills, rank, out/splits], the router [tasks,
    splits·skills].
    """
    splits, skills, inner, rank = shapes["A"]
    up_splits, up_skills, up_rank, outer = shapes["B"]
    common_number(splits, up_splits)
    common_number(skills, up_skills)
    common_number(rank, up_rank)
    tasks, mixed = shapes["router"]
    common_number(splits * skills, mixed)
    for name, found, default in (("n_splits", splits, 1), ("n_skills", skills, 4), ("n_tasks", tasks, 1)):
        declared = config.fields.get(name, default)
        if declared != found:
            raise ValueError(
                f"the tensors have {name} {found}, but the config declares {str(declared)[:20]!a}"
            )
    return ModuleSize(rank, splits * inner, splits * outer)


METHOD = Method(
    name="poly",
    title="Poly",
    key_patterns={"poly_lora_A": "A", "poly_lora_B": "B", r"poly_router\.module_logits": "router"},
    module_size=_module_size,
    products=(("A", "B"),),
    scale=lambda config, module: 1 / module.rank,
    unmergeable_hint=(
        "what it adds depends on the task of each input: serve it unmerged, with PEFT's"
        " PeftModel.from_pretrained and task_ids"
    ),
)
