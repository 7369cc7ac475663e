"""Adaption prompts (LLaMA-Adapter, arXiv 2303.16199; PEFT `adaption_prompt`): gated, in the top layers."""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes, common_number


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    _, _, hidden = shapes["prompt"]
    (gates,) = shapes["gate"]
    common_number(1, gates)
    return ModuleSize(0, hidden, hidden, "block")


def _tokens(config: AdapterConfig, shapes: Shapes) -> int | None:
    return config.rank("adapter_len", 1)


METHOD = Method(
    name="adaption_prompt",
    title="adaption prompt",
    key_patterns={"adaption_prompt": "prompt", "adaption_gate": "gate"},
    module_size=_module_size,
    products=(("gate",),),
    unmergeable_hint=(
        "attention layers read its prompts in addition to the input, through a gate: serve it unmerged, with"
        " PEFT's PeftModel.from_pretrained, or train a LoRA"
    ),
    virtual_tokens=_tokens,
)
