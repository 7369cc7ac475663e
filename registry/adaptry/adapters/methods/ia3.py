"""IA3: outputs (or feed-forward inputs) scaled by a vector (arXiv 2205.05638; PEFT `tuners/ia3`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides
from adaptry.adapters.methods.row_change import RowChange, by_rows
from adaptry.adapters.methods.row_formula import FormulaArrays, FormulaKind, ModuleArrays, RowFormula, mapped
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor


def is_feedforward(config: AdapterConfig, path: str) -> bool:
    """Whether `feedforward_modules`, which is a list of name endings or a pattern for the whole name, selects
    the module as in PEFT. Raises `InvalidConfig` and `Unavailable`.
    """
    feedforward = config.fields.get("feedforward_modules")
    if isinstance(feedforward, str):
        return config.patterns.matches(feedforward, path)
    return path.endswith(config.names("feedforward_modules"))


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    shape = shapes["l"]
    if sorted(shape)[:-1] != [1] * (len(shape) - 1):
        raise ValueError(f"{list(shape)} is not a vector")
    if len(shape) > 2:
        return ModuleSize(0, 0, 0, "conv")
    if shape == (1, 1):
        return ModuleSize(0, 0, 0)  # for one input or one output
    return ModuleSize(0, shape[1] if shape[0] == 1 else 0, shape[0] if shape[0] != 1 else 0)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why the vector does not have PEFT's shape: a column, or a row if it scales inputs or a convolution."""
    shape, scales_inputs = shapes["l"], is_feedforward(config, module.path)
    width = weight.fan_in if scales_inputs else weight.fan_out
    sides = (1, width) if scales_inputs or len(shape) > 2 else (width, 1)
    wanted = (*sides, *(1 for _ in shape[2:]))
    if shape == wanted:
        return None
    side = "inputs" if scales_inputs else "outputs"
    return (
        f"has a vector of {list(shape)}, but according to feedforward_modules it is {list(wanted)}, for the"
        f" {side}"
    )


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    scaling = parts["l"]
    scales_inputs = is_feedforward(parts.config, parts.module.path)
    if scaling.shape[0 if scales_inputs or parts.orientation == "conv" else 1] != 1:
        raise InvalidWeights(
            f"the ia3_l of {parts.module.path} is {list(scaling.shape)}, but according to"
            " feedforward_modules it scales"
            f" the module's {'inputs' if scales_inputs else 'outputs'}: save the adapter again"
        )
    if parts.orientation == "conv1d":
        scaling = scaling.T
    elif parts.orientation == "conv" and not scales_inputs:
        scaling = scaling.transpose(0, 1)
    wide = weight.to(torch.promote_types(weight.dtype, scaling.dtype))  # multiplying mixed dtypes is slow
    return (wide * scaling).to(weight.dtype)


def _rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
    scales_inputs = is_feedforward(parts.config, parts.module.path)
    return (by_rows(_weight) if scales_inputs else by_rows(_weight, "l"))(parts, shape)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    scales_inputs = is_feedforward(parts.config, parts.module.path)
    if parts.shape("l") != ((1, shape[1]) if scales_inputs else (shape[0], 1)):
        return None
    kind: FormulaKind = "column_scaled" if scales_inputs else "row_scaled"
    return RowFormula(kind, 0, lambda: FormulaArrays(vector=parts["l"].reshape(-1)))


def _bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    if is_feedforward(parts.config, parts.module.path):
        return bias
    return (bias * parts["l"].reshape(bias.shape)).to(bias.dtype)


def _bias_formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if is_feedforward(parts.config, parts.module.path):
        return RowFormula("mapped", 0, lambda: mapped(lambda rows, first: rows))
    if parts.shape("l") != shape:
        return None

    def read() -> FormulaArrays:
        factors = parts["l"]
        return mapped(lambda rows, first: rows * factors[first : first + len(rows)])

    return RowFormula("mapped", 0, read)


METHOD = Method(
    name="ia3",
    title="IA3",
    key_patterns={"ia3_l": "l"},
    module_size=_module_size,
    ones="l",
    weight=_weight,
    rows=_rows,
    formula=_formula,
    bias=_bias,
    bias_formula=_bias_formula,
    mismatch=_mismatch,
    needs_base=True,
)
