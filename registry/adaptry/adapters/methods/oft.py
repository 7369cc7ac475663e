"""OFT: inputs rotated by a block-diagonal orthogonal matrix (arXiv 2306.07280, 2506.19847; PEFT
`tuners/oft`).

For a convolution, PEFT's merge rotates the whole kernel. A live adapter rotates every patch of the input and
adds overlapping patches, so with kernels larger than 1×1 the two are different models. Here we compute the
merge.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.rotations import (
    Rotation,
    block_diagonal,
    cayley,
    cayley_neumann,
    cayley_neumann_arrays,
    cayley_transposed,
    fits_without_torch,
    side_of,
    skew,
    skew_arrays,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula, mapped
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    blocks, numbers = shapes["embedding_R" if "embedding_R" in shapes else "R"]
    if config.flag("block_share") and blocks != 1:
        raise ValueError("there are several blocks, but the config declares one shared block")
    rotated = 0 if config.flag("block_share") else blocks * side_of(numbers)
    if "embedding_R" in shapes:
        return ModuleSize(0, 0, rotated, "embedding")
    return ModuleSize(0, rotated, 0, "flat")


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why PEFT cannot load the numbers: it uses the block size or the number of blocks in the config, or the
    nearest number that divides the width.
    """
    is_table = "embedding_R" in shapes
    found = shapes["embedding_R" if is_table else "R"]
    width = weight.fan_out if is_table else weight.fan_in
    size, count = config.fields.get("oft_block_size", 32), config.fields.get("r", 0)
    if type(size) is not int or type(count) is not int or min(size, count) < 0 or not size + count:
        return None  # refused
    size = _nearest_divisor(width, size) if size else width // _nearest_divisor(width, count)
    expected = (1 if config.flag("block_share") else width // size, size * (size - 1) // 2)
    if found == expected:
        return None
    return f"has weights of shape {list(found)}, but oft_block_size and r give {list(expected)}"


def _nearest_divisor(width: int, wanted: int) -> int:
    """Like `adjust_oft_parameters` in PEFT."""
    if wanted >= width:
        return width
    above = next(number for number in range(wanted, width + 1) if width % number == 0)
    below = next(number for number in range(wanted, 0, -1) if width % number == 0)
    return below if wanted - below <= above - wanted else above


def _merge_difference(shape: tuple[int, ...]) -> str | None:
    kernel = shape[2:]
    if max(kernel, default=1) == 1:
        return None
    size = "×".join(map(str, kernel))
    return f"a live OFT rotates overlapping patches of the input, but a merge rotates the kernel of {size}"


def _uses_series(config: AdapterConfig) -> bool:
    return config.fields.get("use_cayley_neumann", True) is True


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    version = re.match(r"(\d+)\.(\d+)", str(config.fields.get("peft_version", "")))
    if _uses_series(config) and (version is None or (int(version[1]), int(version[2])) < (0, 18)):
        return (
            "it was trained with PEFT before 0.18, whose Cayley-Neumann series has another last term: merge"
            " it with that version of PEFT"
        )
    return None


def _rotation(numbers: Tensor, config: AdapterConfig, width: int) -> Tensor:
    """The block-diagonal rotation [width, width] of the trained numbers [blocks, n(n−1)/2]."""
    rotated = skew(numbers)
    if config.flag("coft"):
        rotated = _near_identity(rotated, config.number("eps", 6e-5))
    if _uses_series(config):
        blocks = cayley_neumann(rotated, config.rank("num_cayley_neumann_terms", 5))
    else:
        blocks = cayley(rotated)
    if config.flag("block_share"):
        blocks = blocks.expand(width // blocks.shape[-1], -1, -1)
    return block_diagonal(blocks)


def _near_identity(rotated: Tensor, eps: float) -> Tensor:
    """COFT: scales each block down to a norm of at most ε/√blocks."""
    import torch

    limit = eps * 1 / torch.sqrt(torch.tensor(rotated.shape[0]))
    norm = torch.norm(rotated, dim=(1, 2), keepdim=True)
    return torch.where(norm <= limit, rotated, limit * (rotated / norm))


@on_matrix
def _linear(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    rotation = _rotation(parts["R"], parts.config, weight.shape[1])
    return torch.mm(rotation, weight.t().float()).t().to(weight.dtype)


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    if "embedding_R" not in parts:
        return _linear(weight, parts)
    rotation = _rotation(parts["embedding_R"], parts.config, weight.shape[1])
    return torch.mm(weight.float(), rotation).to(weight.dtype)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """The rotation by the series, if its sums can be added in torch's order, or the exact rotation."""
    config, width = parts.config, shape[1]
    role = "R" if "R" in parts else "embedding_R"
    count, numbers = parts.shape(role)
    side = side_of(numbers)
    if count * side != width and not (config.flag("block_share") and count == 1 and width % side == 0):
        return None
    if not _uses_series(config):
        return _exact_rotation_formula(parts, role, side) if fits_without_torch(count, side) else None
    if role != "R" or config.flag("coft") or not (side == 16 or side % 32 == 0) or width % 32:
        return None

    def read() -> FormulaArrays:
        rotated = skew_arrays(parts["R"])
        if len(rotated) * side != width:
            rotated = rotated.repeat(width // side, axis=0)
        series = cayley_neumann_arrays(parts, rotated, config.rank("num_cayley_neumann_terms", 5))
        return FormulaArrays(blocks=series.transpose(0, 2, 1))

    return RowFormula("rotated", side, read)


def _exact_rotation_formula(parts: ModuleArrays, role: str, side: int) -> RowFormula:
    config = parts.config

    def read() -> FormulaArrays:
        import numpy as np

        rotated = skew_arrays(parts[role]).astype(np.float64)
        if config.flag("coft"):
            limit = config.number("eps", 6e-5) / math.sqrt(len(rotated))
            norms = np.linalg.norm(rotated, axis=(1, 2), keepdims=True)
            rotated *= limit / np.maximum(norms, limit)
        blocks = cayley_transposed(rotated)
        if role == "embedding_R":
            blocks = blocks.transpose(0, 2, 1)
        rotation = Rotation(blocks)
        return mapped(lambda rows, first: rotation(rows))

    return RowFormula("mapped", 0, read, uses_numpy=True)


METHOD = Method(
    name="oft",
    title="OFT",
    key_patterns={r"oft_R\.weight": "R", r"oft_embedding_R\.weight": "embedding_R"},
    tolerance="bit-equal; without the series, within rounding, and at least as exact as PEFT",
    module_size=_module_size,
    products=(("R",), ("embedding_R",)),
    weight=_weight,
    formula=_formula,
    unmergeable_reason=_unmergeable_reason,
    mismatch=_mismatch,
    merge_difference=_merge_difference,
    needs_base=True,
)
