"""SHiRA: trains a few elements of a weight (arXiv 2406.13175; PEFT `tuners/shira`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    add_delta,
    common_number,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    dimensions, count = shapes["indices"]
    common_number(2, dimensions)
    (values,) = shapes["weight"]
    common_number(count, values)
    return ModuleSize(0, 0, 0)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    if module.tensors["indices"].endswith(".default"):
        return (
            "has its positions under a name with the adapter's, which PEFT drops, and computes positions"
            " itself (remove .default from the tensors' names)"
        )
    (count,), wanted = shapes["weight"], config.rank(default=32) * (weight.fan_out + weight.fan_in)
    if count == wanted:
        return None
    return f"changes {count:,} elements, but according to its r it should be {wanted:,} of this base's weight"


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    import torch

    rows, columns = parts["indices"].long()  # PEFT on Windows writes them as floats
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    if not bool(inside.all()):
        raise _outside(parts.module, shape)
    return torch.zeros(shape).index_put_((rows, columns), parts["weight"], accumulate=True)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula:
    def read() -> FormulaArrays:
        import numpy as np

        rows, columns = parts["indices"].astype(np.int64)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        if not inside.all():
            raise _outside(parts.module, shape)
        order = np.argsort(rows, kind="stable")
        rows, columns, values = rows[order], columns[order], parts["weight"][order]

        def write(first: int, block: Floats) -> None:
            begin, end = np.searchsorted(rows, (first, first + len(block)))
            block[:] = 0
            np.add.at(block, (rows[begin:end] - first, columns[begin:end]), values[begin:end])

        return FormulaArrays(write_rows=write)

    return RowFormula("dense", 0, read)


def _outside(module: ModuleSpec, shape: tuple[int, ...]) -> InvalidWeights:
    return InvalidWeights(
        f"{module.path} changes elements beyond its weight of {list(shape)}: is this the base it was trained"
        " on?"
    )


METHOD = Method(
    name="shira",
    title="SHiRA",
    key_patterns={"shira_weight": "weight", "shira_indices": "indices"},
    module_size=_module_size,
    products=(("weight",),),
    weight=add_delta(_delta),
    formula=_formula,
    mismatch=_mismatch,
    integer_roles=frozenset({"indices"}),
)
