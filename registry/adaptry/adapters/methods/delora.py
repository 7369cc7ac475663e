"""DeLoRA: a LoRA with separate strength and direction (arXiv 2503.18225; PEFT `tuners/delora`).

The file has the norms of the base's columns, by which the update is scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    add_delta,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.row_change import RowChange, row_change
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats

_LANES = 8


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    (norms,), (strengths,) = shapes["w_norm"], shapes["lambda"]
    common_number(fan_in, norms)
    common_number(1, strengths)
    return ModuleSize(trained_rank(config, common_number(rank, up)), fan_in, fan_out)


def _strengths(parts: ModuleTensors) -> Tensor:
    """The factor of each rank [r]: λ divided by the rank and by the norms of the rank's two vectors."""
    import torch

    down, up = parts["A"], parts["B"]
    norms = torch.clamp(down.norm(dim=1), min=1e-4) * torch.clamp(up.norm(dim=0), min=1e-4)
    return parts["lambda"] / parts.module.rank / norms


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    return _scaled_up(parts) @ parts["A"] * parts["w_norm"].unsqueeze(0)


def _scaled_up(parts: ModuleTensors) -> Tensor:
    import torch

    return parts["scaled_up"] if "scaled_up" in parts else parts["B"] @ torch.diag_embed(_strengths(parts))


_weight = add_delta(_delta, rounding="twice")


def _rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
    return row_change(_weight, parts, shape, {"scaled_up": _scaled_up(parts)})


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """The update as a formula: a diagonal matrix multiplies each column of B by one number, and the norms are
    summed in torch's order.
    """
    if (parts.shape("B")[0], parts.shape("A")[1]) != shape or parts.shape("w_norm") != shape[1:]:
        return None
    is_column = parts.module.rank == 1  # torch then treats B as a row
    if shape[1] % _LANES or (is_column and shape[0] % _LANES):
        return None

    def read() -> FormulaArrays:
        import numpy as np

        down, up, minimum = parts["A"], parts["B"], np.float32(1e-4)
        of_rows = np.sqrt(_row_squares(down))
        of_columns = np.sqrt(_row_squares(up.T) if is_column else _summed(up * up))
        norms = np.maximum(of_rows, minimum) * np.maximum(of_columns, minimum)
        strengths = parts["lambda"] / np.float32(parts.module.rank) / norms
        return FormulaArrays(((up * strengths, down),), vector=parts["w_norm"])

    return RowFormula("weighted", parts.module.rank, read)


def _row_squares(matrix: Floats) -> Floats:
    """The sums of squares as torch adds them on x86: in eight running sums, which are then added in order."""
    lanes = (matrix * matrix).reshape(len(matrix), -1, _LANES)
    total = _summed(lanes.transpose(1, 0, 2))
    return _summed(total.T)


def _summed(terms: Floats) -> Floats:
    """The sum over the first dimension, in order."""
    total: Floats = terms[0].copy()
    for term in terms[1:]:
        total += term
    return total


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    return parts["B"] * _strengths(parts), parts["A"] * parts["w_norm"]


METHOD = Method(
    name="delora",
    title="DeLoRA",
    key_patterns={f"delora_{role}": role for role in ("A", "B", "lambda", "w_norm")},
    module_size=_module_size,
    products=(("A", "B", "lambda"),),
    untrained_roles="w_norm",
    weight=_weight,
    rows=_rows,
    formula=_formula,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
)
