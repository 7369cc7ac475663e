"""BEFT: a trained addition to the biases and nothing else (arXiv 2509.15974; PEFT `tuners/beft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, Parts, Shapes, Width

if TYPE_CHECKING:
    from torch import Tensor


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    _, fan_out = shapes["bias"]
    return Width(0, 0, fan_out)


def _bias(bias: Tensor, parts: Parts) -> Tensor:
    return (bias.float() + parts["bias"].view(-1)).to(bias.dtype)


METHOD = Method(name="beft", title="BEFT", tails={"beft_bias": "bias"}, width=_width, bias=_bias)
