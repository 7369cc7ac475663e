"""BEFT: trained additions to the biases only (arXiv 2509.15974; PEFT `tuners/beft`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula, mapped
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    _, fan_out = shapes["bias"]
    return ModuleSize(0, 0, fan_out)


def _bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    return (bias.float() + parts["bias"].view(-1)).to(bias.dtype)


def _bias_formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if math.prod(parts.shape("bias")) != shape[0]:
        return None

    def read() -> FormulaArrays:
        added = parts["bias"].reshape(-1, 1)
        return mapped(lambda rows, first: rows + added[first : first + len(rows)])

    return RowFormula("mapped", 0, read)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    wanted = (1, weight.fan_out)
    if shapes["bias"] == wanted:
        return None
    return f"has an addition of {list(shapes['bias'])}, but for this base's bias it is {list(wanted)}"


METHOD = Method(
    name="beft",
    title="BEFT",
    key_patterns={"beft_bias": "bias"},
    module_size=_module_size,
    products=(("bias",),),
    bias=_bias,
    bias_formula=_bias_formula,
    mismatch=_mismatch,
)
