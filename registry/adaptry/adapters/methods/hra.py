"""HRA: inputs reflected by a chain of Householder reflections (arXiv 2405.17484; PEFT `tuners/hra`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    fan_in, rank = shapes["u"]
    return ModuleSize(rank, fan_in, 0, "flat")


def _columns(vectors: Tensor) -> list[Tensor]:
    """The columns as PEFT extracts them, since the stride of an operand decides how its sum is rounded."""
    return [vectors[:, column].view(-1, 1) for column in range(vectors.shape[1])]


def _chain(vectors: Tensor) -> Tensor:
    """Π(I − 2uuᵀ) [in, in], left to right, over the normalised columns."""
    import torch

    vectors = vectors / vectors.norm(dim=0)
    product = torch.eye(vectors.shape[0])
    for vector in _columns(vectors):
        product = product - 2 * product @ vector @ vector.t()
    return product


def _orthogonal(vectors: Tensor) -> Tensor:
    """I − 2QQᵀ [in, in], with Q from Gram-Schmidt (`apply_GS`)."""
    import torch

    basis: list[Tensor] = []
    for vector in _columns(vectors):
        for earlier in basis:
            vector = vector - (earlier.t() @ vector) * earlier
        basis.append(vector / vector.norm())
    matrix = torch.cat(basis, dim=1)
    return torch.eye(vectors.shape[0]) - 2 * matrix @ matrix.t()


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    reflect = _orthogonal if parts.config.flag("apply_GS") else _chain
    return torch.mm(weight.float(), reflect(parts["u"])).to(weight.dtype)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """W − (W·U)·(T·Uᵀ), the compact form of a chain of reflections (Schreiber and Van Loan, 1989).

    With `apply_GS`, torch is needed, because its rounding determines the orthogonal vectors of nearly equal
    columns.
    """
    fan_in, rank = parts.shape("u")
    if parts.config.flag("apply_GS") or fan_in != shape[1]:
        return None

    def read() -> FormulaArrays:
        import numpy as np

        vectors = parts["u"].astype(np.float64)
        with np.errstate(invalid="ignore"):  # as in PEFT, a zero vector gives NaN, which a merge refuses
            vectors /= np.sqrt((vectors * vectors).sum(axis=0))
        triangle = np.zeros((rank, rank))
        for place in range(rank):
            overlaps = vectors[:, :place].T @ vectors[:, place]
            triangle[:place, place] = -2 * triangle[:place, :place] @ overlaps
            triangle[place, place] = 2
        return FormulaArrays(
            ((vectors.astype(np.float32), (triangle @ vectors.T).astype(np.float32)),), scale=-1.0
        )

    return RowFormula("projected", rank, read, uses_numpy=True)


METHOD = Method(
    name="hra",
    title="HRA",
    key_patterns={"hra_u": "u"},
    module_size=_module_size,
    is_relative=lambda traits: True,  # PEFT begins with pairs of equal vectors, whose reflections cancel
    weight=_weight,
    formula=_formula,
    lora_form="given_base",
    lora_rank=lambda module, config: module.rank,
    needs_base=True,
    tolerance="within rounding, and at least as exact as PEFT",
)
