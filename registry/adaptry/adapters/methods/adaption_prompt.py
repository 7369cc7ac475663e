"""Adaption prompts (LLaMA-Adapter, arXiv 2303.16199; PEFT `tuners/adaption_prompt`): gated prompts in the top layers."""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, Shapes, Width, same


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    _, _, hidden = shapes["prompt"]
    same(1, *shapes["gate"])
    return Width(0, hidden, hidden, "block")


def _tokens(config: AdapterConfig, shapes: Shapes) -> int | None:
    return config.rank("adapter_len", 1)


METHOD = Method(
    name="adaption_prompt",
    title="adaption prompt",
    tails={"adaption_prompt": "prompt", "adaption_gate": "gate"},
    width=_width,
    instead=(
        "its prompts are attended to beside the input, through a gate: serve it unmerged, with PEFT's "
        "PeftModel.from_pretrained, or train a LoRA"
    ),
    virtual_tokens=_tokens,
)
