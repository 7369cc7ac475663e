"""Changes of a matrix in blocks of its rows, so that a merge never holds a whole weight.

A method that changes each row of a weight separately lists which of its tensors have a row for each row of
the weight. A block is changed by the method's own function, which gets only these rows of the weight and of
the tensors, so every element is computed by the same operations as in the whole weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.method import ChangeFunction, FactorsFunction, ModuleTensors


@dataclass(frozen=True, slots=True)
class RowChange:
    """`apply(rows, first)` changes the rows [first, first + n) of a weight: [n, in] as stored, which must not
    be written to, into [n, in] in the same dtype.

    `depth` is the largest inner dimension of its matrix products: BLAS may sum deep products of a block in a
    different order than those of the whole. A block is a multiple of `unit` rows and begins at one, or it
    lies within a unit.
    """

    apply: Callable[[Tensor, int], Tensor]
    depth: int = 0
    unit: int = 1

    def at(self, first: int) -> Callable[[Tensor], Tensor]:
        """The change of the rows from `first` on."""
        return lambda rows: self.apply(rows, first)


RowChangeFunction = Callable[["ModuleTensors", tuple[int, ...]], RowChange | None]
"""`rows(parts, shape)` returns the change of a weight of this shape by rows, or None if it needs the
whole.
"""


def by_rows(change: ChangeFunction, *roles: str) -> RowChangeFunction:
    """`change` of a matrix [out, in], where the tensors of `roles` have a row for each output."""

    def rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
        return row_change(change, parts, shape, {role: parts[role] for role in roles if role in parts})

    return rows


def row_change(
    change: ChangeFunction, parts: ModuleTensors, shape: tuple[int, ...], tall: Mapping[str, Tensor]
) -> RowChange | None:
    """`change` of a matrix [out, in], where `tall` are the tensors with a row for each output.

    None for other orientations, and if a tensor does not fit; changing the whole weight then reports the
    reason.
    """
    if not is_matrix(parts, shape) or any(len(tensor) != shape[0] for tensor in tall.values()):
        return None

    def apply(stored: Tensor, first: int) -> Tensor:
        last = first + len(stored)
        return change(stored, parts.with_tensors({role: whole[first:last] for role, whole in tall.items()}))

    return RowChange(apply, parts.module.rank)


def factor_rows(
    factors: FactorsFunction, of_product: Callable[[FactorsFunction], ChangeFunction]
) -> RowChangeFunction:
    """The change that `of_product` makes of a method's factors, whose `up` has a row for each output."""
    change = of_product(lambda parts, fan_out, fan_in: (parts["up"], parts["down"]))

    def rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
        if not is_matrix(parts, shape):
            return None
        up, down = factors(parts, *shape)
        return row_change(change, parts.with_tensors({"down": down}), shape, {"up": up})

    return rows


def is_matrix(parts: ModuleTensors, shape: tuple[int, ...]) -> bool:
    """Whether the weight is stored as [out, in]."""
    return parts.orientation == "linear" and len(shape) == 2
