"""GLoRA: scales and shifts weight and bias by the paths A to E, each low-rank, a vector, a number or absent
(arXiv 2306.07967; PEFT `tuners/glora`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.row_change import RowChange, by_rows
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


_FORM_FIELDS = {"A": "config_A_B", "B": "config_A_B", "D": "config_D_E", "E": "config_D_E"}
"""The config's fields with the forms of paths."""
_DEFAULT_FORMS = {"config_D_E": "constant"}


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """The sides of the weight: every path has one or both, even an absent path of zeros; a path of one number
    has none. Each path has exactly the shape that PEFT loads.
    """
    ranks, outputs, inputs = [0], list[int](), list[int]()
    for path in "ABCDE":
        shape = shapes.get(f"path.{path}.X") or shapes.get(f"path.{path}.zeros")
        if shape is None:
            (first, up), (down, last) = shapes[f"path.{path}.Xd"], shapes[f"path.{path}.Xu"]
            ranks.append(trained_rank(config, common_number(up, down)))
            shape = (first, last)
        if shape == (1,) and _form(config, path) == "constant":
            continue
        if path in "DE":
            (rows,) = shape
        else:
            rows, columns = shape
            if path == "C" or f"path.{path}.X" in shapes:
                common_number(columns, 1)
            else:
                inputs.append(columns)
        (inputs if path == "C" else outputs).append(rows)
    return ModuleSize(
        max(ranks), common_number(*inputs) if inputs else 0, common_number(*outputs) if outputs else 0
    )


def _form(config: AdapterConfig, path: str) -> object:
    field = _FORM_FIELDS.get(path, "")
    return config.fields.get(field, _DEFAULT_FORMS.get(field))


def _path(parts: ModuleTensors, path: str, like: Tensor) -> Tensor:
    if f"path.{path}.Xd" in parts:
        found = parts[f"path.{path}.Xd"] @ parts[f"path.{path}.Xu"]
    elif f"path.{path}.zeros" in parts:
        found = parts[f"path.{path}.zeros"]
    else:
        found = parts[f"path.{path}.X"]
    return found.to(like.dtype)


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """The new weight, computed in the weight's dtype throughout, as in PEFT."""
    return weight + (weight * _path(parts, "A", weight) + _path(parts, "B", weight))


def _rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
    """The change by rows: in A and B, left factors, matrices and columns have a row for each output."""
    tall = [f"path.{path}.{role}" for path in "AB" for role in ("Xd", "X", "zeros")]
    is_short = [role for role in tall if role in parts and parts[role].shape[:1] != shape[:1]]
    return by_rows(_weight, *(role for role in tall if role not in is_short))(parts, shape)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """The change with both paths as products: a vector, a number or zero is a product of rank one."""
    ranks = [_path_rank(parts, path, shape) for path in "AB"]
    if 0 in ranks:
        return None
    depth = max(ranks)

    def read() -> FormulaArrays:
        first, second = (_path_factors(parts, path, shape, depth) for path in "AB")
        return FormulaArrays((first, second))

    return RowFormula("affine", depth, read)


def _path_rank(parts: ModuleArrays, path: str, shape: tuple[int, int]) -> int:
    """The rank of a path that is a product of two factors; 0 for any other path."""
    if f"path.{path}.Xd" in parts:
        up, down = parts.shape(f"path.{path}.Xd"), parts.shape(f"path.{path}.Xu")
        return up[1] if (up[0], down[1]) == shape and up[1] == down[0] else 0
    if f"path.{path}.zeros" in parts:
        return int(parts.shape(f"path.{path}.zeros") in (shape, (1,), (1, 1), (shape[0], 1)))
    return int(parts.shape(f"path.{path}.X") in ((1,), (1, 1), (shape[0], 1)))


def _path_factors(
    parts: ModuleArrays, path: str, shape: tuple[int, int], depth: int
) -> tuple[Floats, Floats]:
    """The factors [out, depth] and [depth, in], filled up with zeros."""
    import numpy as np

    up, down = np.zeros((shape[0], depth), np.float32), np.zeros((depth, shape[1]), np.float32)
    if f"path.{path}.Xd" in parts:
        left, right = parts[f"path.{path}.Xd"], parts[f"path.{path}.Xu"]
        up[:, : left.shape[1]], down[: len(right)] = left, right
    elif f"path.{path}.zeros" not in parts:
        up[:, :1], down[0] = parts[f"path.{path}.X"].reshape(-1, 1), 1
    return up, down


def _bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    weight = parts.weight()
    if parts.orientation == "conv1d":
        weight = weight.T
    through = (weight @ _path(parts, "C", bias)).squeeze(-1)
    return bias + (bias * _path(parts, "D", bias) + _path(parts, "E", bias) + through)


METHOD = Method(
    name="glora",
    title="GLoRA",
    key_patterns={r"glora_(?P<rest>[A-E]\.(?:Xd|Xu|X|zeros))": "path"},
    module_size=_module_size,
    products=tuple(
        tuple(rf"path\.{path}\.{role}" for role in ("Xd", "Xu", "X", "zeros")) for path in "ABCDE"
    ),
    untrained_roles=r"path\..+\.zeros",
    weight=_weight,
    rows=_rows,
    formula=_formula,
    bias=_bias,
    needs_base=True,
)
