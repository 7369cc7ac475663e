"""Lily (arXiv 2407.09946; PEFT `tuners/lily`): a down-projection, up-projections, and a router per token."""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes, common_number


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """A is [rank, in], B [experts·rank, out] (not transposed as in a LoRA), the router [experts, rank]."""
    (rank, fan_in), (rows, fan_out), (experts, width) = shapes["A"], shapes["B"], shapes["router"]
    common_number(rank, width)
    common_number(rows, experts * rank)
    return ModuleSize(rank, fan_in, fan_out)


METHOD = Method(
    name="lily",
    title="Lily",
    key_patterns={r"lily_A\.weight": "A", r"lily_B\.weight": "B", r"lily_router\.weight": "router"},
    module_size=_module_size,
    products=(("A", "B"),),
    scale=lambda config, module: config.number("scaling", 1.0),
    unmergeable_hint=(
        "a router mixes its experts for each token, so there is no single change of a weight: serve it"
        " unmerged, with PEFT's PeftModel.from_pretrained"
    ),
)
