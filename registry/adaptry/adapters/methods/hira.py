"""HiRA: the base's weight times a low-rank product, element by element (ICLR 2025; PEFT `tuners/hira`)."""

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
from adaptry.adapters.methods.row_change import by_rows
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    is_embedding = "embedding_A" in shapes
    down, up = (shapes[f"embedding_{role}" if is_embedding else role] for role in ("A", "B"))
    rank = common_number(down[0], up[1])
    if len(down) != len(up):
        raise ValueError("one of its factors has more dimensions than the other")
    if is_embedding:
        return ModuleSize(rank, down[1], up[0], "embedding")
    return ModuleSize(rank, down[1], up[0], "conv" if len(down) > 2 else "linear")


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why the factors do not fit a convolution: A must have the weight's kernel, and B one of size 1."""
    if not weight.kernel or "A" not in shapes:
        return None
    kernels = (shapes["A"][2:], shapes["B"][2:])
    expected = (weight.kernel, (1,) * len(weight.kernel))
    return None if kernels == expected else f"has kernels of {kernels}, but this base's give {expected}"


def _product(parts: ModuleTensors) -> Tensor:
    """BA in the weight's stored shape."""
    from torch.nn import functional

    if "embedding_A" in parts:
        return (parts["embedding_B"] @ parts["embedding_A"]).T
    down, up = parts["A"], parts["B"]
    if down.dim() == 2:
        product = up @ down
        return product.T if parts.orientation == "conv1d" else product
    if down.dim() == 4 and down.shape[2:] == (1, 1):
        return (up[:, :, 0, 0] @ down[:, :, 0, 0])[:, :, None, None]
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[down.dim() - 3]
    return convolve(down.transpose(0, 1), up).transpose(0, 1)


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """The new weight, computed in the weight's dtype as in PEFT: BA, W∘BA and the sum are each rounded."""
    return weight + weight * _product(parts).to(weight.dtype)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if "A" not in parts or (parts.shape("B")[0], *parts.shape("A")[1:]) != shape:
        return None
    return RowFormula("multiplied", parts.module.rank, lambda: FormulaArrays(((parts["B"], parts["A"]),)))


METHOD = Method(
    name="hira",
    title="HiRA",
    key_patterns={rf"hira_{role}": role for role in ("A", "B", "embedding_A", "embedding_B")},
    module_size=_module_size,
    products=(("A", "B"),),
    mismatch=_mismatch,
    weight=_weight,
    rows=by_rows(_weight, "B"),
    formula=_formula,
    # torch 2.15 uses another algorithm for such a convolution if it has only one thread.
    tolerance="bit-equal; on convolutions with fewer than 16 inputs, only with the same number of threads",
    needs_base=True,
)
