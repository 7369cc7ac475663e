"""LoKr: a Kronecker product of two matrices, whole or factored (LyCORIS, arXiv 2309.14859; `tuners/lokr`).

The tensors show which matrix is factored. A module's rank is that of its whole update, rank(w1)·rank(w2).
PEFT scales by alpha/r even if neither is factored; LyCORIS itself then scales by 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.loha import effective_conv_mismatch, scale
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    add_delta,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.row_change import RowChange, is_matrix
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    left = _left_size(shapes, config)
    right = _right(shapes, config)
    kind = right.kind
    return ModuleSize(left.rank * right.rank, left.fan_in * right.fan_in, left.fan_out * right.fan_out, kind)


def _left_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    if "w1" in shapes:
        fan_out, fan_in = shapes["w1"]
        return ModuleSize(min(fan_out, fan_in), fan_in, fan_out)
    (fan_out, rank), (up, fan_in) = shapes["w1_a"], shapes["w1_b"]
    return ModuleSize(trained_rank(config, common_number(rank, up)), fan_in, fan_out)


def _right(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    if "w2" in shapes:
        fan_out, fan_in, *kernel = shapes["w2"]
        return ModuleSize(min(fan_out, fan_in), fan_in, fan_out, "conv" if kernel else "flat")
    if "t2" in shapes:
        (first, fan_out), (second, fan_in) = shapes["w2_a"], shapes["w2_b"]
        rank = trained_rank(config, common_number(first, second, *shapes["t2"][:2]))
        return ModuleSize(rank, fan_in, fan_out, "conv")
    (fan_out, first), (second, fan_in) = shapes["w2_a"], shapes["w2_b"]
    return ModuleSize(trained_rank(config, common_number(first, second)), fan_in, fan_out, "flat")


def factorisation(dimension: int, factor: int) -> tuple[int, int]:
    """Like `factorization` in PEFT and LyCORIS: two numbers whose product is `dimension`, the first near
    `factor`.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    maximum = dimension if factor == -1 else factor
    smaller, larger = 1, dimension
    while smaller < larger:
        following = next(number for number in range(smaller + 1, dimension + 1) if dimension % number == 0)
        if following + dimension // following > 1 + dimension or following > maximum:
            break
        smaller, larger = following, dimension // following
    return min(smaller, larger), max(smaller, larger)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why the factors differ from those that PEFT makes for this weight: in size, or because only one of the
    two is factored.
    """
    factor = config.fields.get("decompose_factor", -1)
    if type(factor) is not int:
        return f"is cut by a decompose_factor of {str(factor)[:20]}"
    rank = config.rank_for(module.path, config.rank())
    fan_in = weight.fan_in // (math.prod(weight.kernel) if module.kind == "flat" else 1)
    (left_in, right_in), (left_out, right_out) = (
        factorisation(fan_in, factor),
        factorisation(weight.fan_out, factor),
    )
    left = _left_size(shapes, config)
    if (left.fan_out, left.fan_in) != (left_out, left_in):
        return (
            f"has a first factor of {left.fan_out}×{left.fan_in}, but according to decompose_factor"
            f" {factor} it is"
            f" {left_out}×{left_in}"
        )
    is_left_whole = not (config.flag("decompose_both") and rank < max(left_out, left_in) / 2)
    if ("w1" in shapes) != is_left_whole or ("w2" in shapes) != (rank >= max(right_out, right_in) / 2):
        return "has whole factors but PEFT splits them (by its r and decompose_both), or the reverse"
    return effective_conv_mismatch(module, shapes, config, weight)


def _matrices(parts: ModuleTensors) -> tuple[Tensor, Tensor]:
    """The complete matrices w1 [a, b] and w2 [c, d] or [c, d, k, k]."""
    import torch

    left = parts["w1"] if "w1" in parts else parts["w1_a"] @ parts["w1_b"]
    if "w2" in parts:
        return left, parts["w2"]
    if "t2" in parts:
        return left, torch.einsum("ijkl,ip,jr->prkl", parts["t2"], parts["w2_a"], parts["w2_b"])
    return left, parts["w2_a"] @ parts["w2_b"]


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    import torch

    left, right = _matrices(parts)
    if right.dim() == 4:
        left = left[:, :, None, None]
    return torch.kron(left, right.contiguous()).mul_(parts.module.scale).reshape(shape)


_weight = add_delta(_delta)


def _rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
    """The change by rows: each row of w1 gives one row of the update for each row of w2."""
    if not is_matrix(parts, shape):
        return None
    left, right = _matrices(parts)
    unit = len(right)
    if right.dim() != 2 or (len(left) * unit, left.shape[1] * right.shape[1]) != shape:
        return None

    def apply(stored: Tensor, first: int) -> Tensor:
        begin, inside = divmod(first, unit)
        rows = {
            "w1": left[begin : begin + max(1, len(stored) // unit)],
            "w2": right[inside : inside + len(stored)],
        }
        return _weight(stored, parts.with_tensors(rows))

    return RowChange(apply, unit=unit)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if "t2" in parts or any(
        f"w{n}" not in parts and not parts.multiplies(parts.shape(f"w{n}_a"), parts.shape(f"w{n}_b"))
        for n in (1, 2)
    ):
        return None
    left, right = (_shape(parts, n) for n in (1, 2))
    if len(right) != 2 or (left[0] * right[0], left[1] * right[1]) != shape:
        return None

    def read() -> FormulaArrays:
        left, right = (
            parts[f"w{n}"] if f"w{n}" in parts else parts.product(f"w{n}_a", f"w{n}_b") for n in (1, 2)
        )
        return FormulaArrays(scale=parts.module.scale, write_rows=_kronecker_rows(left, right))

    return RowFormula("dense", 0, read)


def _shape(parts: ModuleArrays, n: int) -> tuple[int, ...]:
    """The shape of w1 or w2."""
    if f"w{n}" in parts:
        return parts.shape(f"w{n}")
    return parts.shape(f"w{n}_a")[0], parts.shape(f"w{n}_b")[1]


def _kronecker_rows(left: Floats, right: Floats) -> Callable[[int, Floats], None]:
    """Writes rows of the Kronecker product: each row of `left` gives one for each row of `right`."""
    import numpy as np

    unit, width = right.shape

    def write(first: int, rows: Floats) -> None:
        done = 0
        while done < len(rows):
            begin, inside = divmod(first + done, unit)
            part = right[inside : inside + len(rows) - done]
            target = rows[done : done + len(part)].reshape(len(part), -1, width)
            np.multiply(left[begin][None, :, None], part[:, None, :], out=target)
            done += len(part)

    return write


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    """up [out, r] and down [r, in], the Kronecker products of the factors of w1 and w2, with r =
    rank(w1)·rank(w2).
    """
    import torch

    (left_up, left_down), (right_up, right_down) = (_split(matrix.flatten(1)) for matrix in _matrices(parts))
    up = torch.einsum("ai,cj->acij", left_up, right_up).reshape(fan_out, -1)
    return up * parts.module.scale, torch.einsum("ib,jd->ijbd", left_down, right_down).reshape(-1, fan_in)


def _split(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The factors [a, r] and [r, b] of a matrix, whose rank r is that of the matrix in float32."""
    import torch

    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    noise = values[0] * max(matrix.shape) * torch.finfo(torch.float32).eps
    rank = max(1, int((values > noise).sum()))
    root = values[:rank].sqrt()
    return (left[:, :rank] * root).float(), (root[:, None] * right[:rank]).float()


METHOD = Method(
    name="lokr",
    title="LoKr",
    key_patterns={f"lokr_{role}": role for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    module_size=_module_size,
    products=(("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"),),
    scale=scale,
    weight=_weight,
    rows=_rows,
    formula=_formula,
    lora_form="exact",
    factors=_factors,
    mismatch=_mismatch,
    lora_rank=lambda module, config: module.rank,
)
