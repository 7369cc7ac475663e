"""GLoRA: weight and bias, scaled and shifted by paths A to E, each low-rank, a vector, a number or absent
(arXiv 2306.07967; PEFT `tuners/glora`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, common_number
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.row_change import RowChange, by_rows

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """The sides, from paths A and B if they have any. Every path has a tensor, even if it is zero. Paths C to
    E have as many rows as the weight has inputs (C) or outputs; a path of one number has one.
    """
    rank = fan_in = fan_out = 0
    rows: dict[str, int] = {}
    for path in "ABCDE":
        shape = shapes.get(f"path.{path}.X") or shapes.get(f"path.{path}.zeros")
        if shape is None:
            up, down = shapes[f"path.{path}.Xd"], shapes[f"path.{path}.Xu"]
            rank, shape = common_number(up[1], down[0]), (up[0], down[1])
        rows[path] = shape[0]
        if path in "AB":
            fan_out = shape[0] if len(shape) == 2 else fan_out
            fan_in = shape[1] if len(shape) == 2 and shape[1] > 1 else fan_in
    for path, expected in (("C", fan_in), ("D", fan_out), ("E", fan_out)):
        if expected and rows[path] not in (1, expected):
            raise ValueError(f"path {path} has {rows[path]:,} rows, but the weight {expected:,}")
    return ModuleSize(rank, fan_in, fan_out)


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
    """Of A and B: a product's left factor has a row for each output, and so has a matrix or a column."""
    tall = [f"path.{path}.{role}" for path in "AB" for role in ("Xd", "X")]
    is_short = [role for role in tall if role in parts and parts[role].shape[:1] != shape[:1]]
    return by_rows(_weight, *(role for role in tall if role not in is_short))(parts, shape)


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
    untrained_roles=r"path\..+\.zeros",
    weight=_weight,
    rows=_rows,
    bias=_bias,
    needs_base=True,
)
