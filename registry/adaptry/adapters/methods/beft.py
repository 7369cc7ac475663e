"""BEFT: trained additions to the biases only (arXiv 2509.15974; PEFT `tuners/beft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    _, fan_out = shapes["bias"]
    return ModuleSize(0, 0, fan_out)


def _bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    return (bias.float() + parts["bias"].view(-1)).to(bias.dtype)


METHOD = Method(
    name="beft", title="BEFT", key_patterns={"beft_bias": "bias"}, module_size=_module_size, bias=_bias
)
