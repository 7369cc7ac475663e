"""Shadow (PEFT `tuners/shadow`): a small model that runs in parallel with the base, connected to each layer.

PEFT keeps the adapter's name in these keys (`shadow_down.default.weight`).
"""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes, common_number

_NAMED = r"\.[A-Za-z0-9_-]+\."


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, fan_in), (fan_out, up_rank) = shapes["down"], shapes["up"]
    common_number(rank, up_rank)
    for part in ("gate", "transform"):
        for layer in (0, 2):
            common_number(shapes[f"{part}.{layer}.weight"][0], *shapes[f"{part}.{layer}.bias"])
    return ModuleSize(rank, fan_in, fan_out, "block")


METHOD = Method(
    name="shadow",
    title="Shadow",
    key_patterns={
        rf"shadow_down{_NAMED}weight": "down",
        rf"shadow_up{_NAMED}weight": "up",
        rf"shadow_update_gate{_NAMED}(?P<rest>.+)": "gate",
        rf"shadow_update_transform{_NAMED}(?P<rest>.+)": "transform",
    },
    shared={rf"shadow_backbone{_NAMED}(?P<rest>.+)": "backbone"},
    module_size=_module_size,
    products=(("up",),),
    scale=lambda config, module: config.number("shadow_alpha", 0.1),
    unmergeable_hint=(
        "it is a second, small model that runs in parallel with the base: serve it unmerged, with PEFT's "
        "PeftModel.from_pretrained"
    ),
)
