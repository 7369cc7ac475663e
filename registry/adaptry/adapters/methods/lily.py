"""Lily (arXiv 2407.09946; PEFT `tuners/lily`): a down-projection, several up-projections, and a router per token."""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, Shapes, Width, same


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    """A is [rank, in], B [experts·rank, out] (not turned, as a LoRA's is), the router [experts, rank]."""
    (rank, fan_in), (rows, fan_out), (experts, width) = shapes["A"], shapes["B"], shapes["router"]
    same(rank, width)
    same(rows, experts * rank)
    return Width(rank, fan_in, fan_out)


METHOD = Method(
    name="lily",
    title="Lily",
    tails={r"lily_A\.weight": "A", r"lily_B\.weight": "B", r"lily_router\.weight": "router"},
    width=_width,
    scale=lambda config, module: config.number("scaling", 1.0),
    instead=(
        "a router mixes its experts anew for every token, so it is no one change of a weight: serve it unmerged, "
        "with PEFT's PeftModel.from_pretrained"
    ),
)
