"""BOFT: inputs rotated by butterfly rotations, outputs scaled (arXiv 2311.06243; PEFT `tuners/boft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
)
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.rotations import (
    Rotation,
    block_diagonal,
    cayley,
    cayley_transposed,
    fits_without_torch,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    factors, blocks, side, again = shapes["R"]
    *ones, outputs = sorted(shapes["s"])  # a column, with one more dimension per side of a kernel
    common_number(side, again)
    common_number(1, *ones)
    if (config.fields.get("boft_block_size") or side, config.fields.get("boft_block_num") or blocks) != (
        side,
        blocks,
    ):
        raise ValueError("the blocks do not have the size that the config declares")
    declared = config.fields.get("boft_n_butterfly_factor", 1)
    if factors not in (1, declared):  # without its CUDA extension, PEFT always makes one
        raise ValueError(f"the file has {factors:,} butterfly factors, but the config declares {declared!r}")
    return ModuleSize(0, blocks * side, outputs, "flat")


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why PEFT cannot load the outputs' factors: they must be a column for a matrix, a row for a
    convolution.
    """
    expected = (1, weight.fan_out) if weight.kernel else (weight.fan_out, 1)
    return None if shapes["s"] == expected else f"has boft_s of {list(shapes['s'])}, not {list(expected)}"


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    parts = config.fields.get("boft_block_size") or config.fields.get("boft_block_num")
    if type(parts) is not int or weight.fan_in % parts == 0:
        return None
    return f"rotates inputs in multiples of {parts:,}, but this base's weight has {weight.fan_in:,}"


def _butterfly(width: int, blocks: int, half: int) -> Tensor:
    """The order [in] in which a factor reads the inputs: in each of `blocks` parts, even half-blocks come
    first.
    """
    import torch

    return torch.from_numpy(_butterfly_array(width, blocks, half))


def _butterfly_array(width: int, blocks: int, half: int) -> NDArray[np.int64]:
    import numpy as np

    parts = np.arange(width).reshape(blocks, -1, half)
    return np.concatenate((parts[:, ::2], parts[:, 1::2]), axis=1).reshape(-1)


def _rotation(trained: Tensor) -> Tensor:
    """[factors, blocks, n, n] → orthogonal [blocks·n, blocks·n]."""
    factors, blocks, side, _ = trained.shape
    flat = trained.view(factors * blocks, side, side)
    rotated = cayley(0.5 * (flat - flat.transpose(1, 2))).view_as(trained)
    product = block_diagonal(rotated[0])
    if factors == 1:
        return product
    for number in range(factors):
        order = _butterfly(blocks * side, blocks // 2**number, side // 2)
        factor = block_diagonal(rotated[number])[order][:, order]
        product = factor if number == 0 else factor @ product
    return product


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    rotated = torch.mm(_rotation(parts["R"]), weight.t().float()).t()
    return (rotated * parts["s"].view(-1, 1)).to(weight.dtype)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """The formula: each factor permutes the inputs, multiplies them by its blocks, and restores their
    order.
    """
    factors, count, side, _ = parts.shape("R")
    if (count * side, parts.shape("s")) != (shape[1], (shape[0], 1)):
        return None
    if not fits_without_torch(factors * count, side):
        return None

    def read() -> FormulaArrays:
        import numpy as np

        trained, scales = parts["R"].astype(np.float64), parts["s"]
        first_turn, *turns = (
            Rotation(cayley_transposed(0.5 * (each - each.transpose(0, 2, 1)))) for each in trained
        )
        orders = [_butterfly_array(shape[1], count // 2**number, side // 2) for number in range(1, factors)]

        def write(first: int, rows: Floats) -> None:
            rotated = first_turn(rows)  # the first factor does not permute the inputs
            for order, turn in zip(orders, turns, strict=True):
                rotated = turn(rotated[:, np.argsort(order)])[:, order]
            np.multiply(rotated, scales[first : first + len(rows)], out=rows, casting="same_kind")

        return FormulaArrays(write_rows=write)

    return RowFormula("mapped", 0, read, uses_numpy=True)


METHOD = Method(
    name="boft",
    title="BOFT",
    key_patterns={"boft_R": "R", "boft_s": "s"},
    tolerance="within rounding, and at least as exact as PEFT",
    module_size=_module_size,
    products=(("R",),),
    ones="s",
    weight=_weight,
    formula=_formula,
    mismatch=_mismatch,
    cannot_adapt=_cannot_adapt,
    needs_base=True,
)
