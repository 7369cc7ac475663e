"""`--rounding peft`: rounds like PEFT, which merges one adapter after another into a loaded model.

PEFT holds the model in the dtype in which it was loaded, and rounds to it after each adapter. So the base is
cast first, and then each input is merged into the rounded result of the previous one. For a single input and
an unchanged dtype, both ways round identically.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods.row_change import RowChange
from adaptry.compute.merging.tensor_changes import TensorChanges
from adaptry.compute.merging.whole_changes import (
    StoredWeight,
    StreamedChange,
    WholeChange,
    apply_changes,
    changes_by_rows,
    joined_rows,
)
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import ReadBias


@dataclass(frozen=True, slots=True)
class SequentialRounding:
    """Changes of one weight, each applied to the result of the previous one, in `dtype` (as in
    safetensors).
    """

    steps: tuple[WholeChange, ...]
    dtype: str
    weight: float = 1.0

    def apply(self, stored: Tensor, read_bias: ReadBias) -> Tensor:
        from adaptry.compute.tensors.dtypes import torch_dtype

        dtype = torch_dtype(self.dtype)
        weight = stored.to(dtype)
        for step in self.steps:
            weight = apply_changes([step], weight, _cast(read_bias, dtype))
        return weight

    def by_rows(self, weight: StoredWeight, read_bias: ReadBias) -> RowChange | None:
        from adaptry.compute.tensors.dtypes import torch_dtype

        dtype = torch_dtype(self.dtype)
        cast = StoredWeight(weight.shape, dtype)
        steps = [changes_by_rows([step], cast, _cast(read_bias, dtype)) for step in self.steps]
        in_turn = [step for step in steps if step is not None]
        if len(in_turn) < len(steps):
            return None

        def apply(stored: Tensor, first: int) -> Tensor:
            rows = stored.to(dtype)
            for step in in_turn:
                rows = step.apply(rows, first)
            return rows

        return joined_rows(in_turn, apply)


def _cast(read_bias: ReadBias, dtype: torch.dtype) -> ReadBias:
    def read_cast_bias() -> Tensor | None:
        bias = read_bias()
        return None if bias is None else bias.to(dtype)

    return read_cast_bias


def round_as_peft(changes: TensorChanges, source_dtype: str, dtype: str) -> TensorChanges:
    """The changes with PEFT's roundings, for a weight with `source_dtype` in the base and `dtype` in the
    result; unchanged if the roundings are the same.
    """
    steps = (*(StreamedChange(each, changes.is_transposed) for each in changes.updates), *changes.changes)
    if len(steps) < 2 and source_dtype == dtype:
        return changes
    if not steps:
        return changes
    return TensorChanges(changes=(SequentialRounding(steps, dtype),), bias=changes.bias)
