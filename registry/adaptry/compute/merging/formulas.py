"""Which tensors of a plan are changed by a formula, so that compiled code merges them without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.adapters.methods.row_formula import FormulaArrays, RowFormula, mapped
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.whole_changes import (
    ChangeChain,
    MethodChange,
    Replacement,
    RowReplacement,
    StreamedChange,
    WholeChange,
)
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from adaptry.adapters.methods.row_formula import Floats


def formula_of(tensor: OutputTensor) -> RowFormula | None:
    """The formula of a tensor's only change, derived from headers; None if it has other changes, or no
    formula.
    """
    if len(tensor.changes) != 1 or tensor.packed is not None or tensor.rows is not None:
        return None
    (change,) = tensor.changes
    return _of_change(change, tensor) if change.weight == 1.0 else None


def _of_change(change: WholeChange, tensor: OutputTensor) -> RowFormula | None:
    match change:
        case MethodChange():
            return _of_method(change, tensor)
        case StreamedChange():
            return _of_lora(change, tensor.source.shape)
        case Replacement():
            return _of_replacement(change, tensor.source.shape)
        case RowReplacement():
            return _of_rows(change, tensor.source.shape)
        case ChangeChain(steps=(Replacement() as first, second)):
            start, then = _of_replacement(first, tensor.source.shape), _of_change(second, tensor)
            return replace(then, start=start.read().write_rows) if start and then else None
        case _:
            return None


def _of_lora(change: StreamedChange, shape: tuple[int, ...]) -> RowFormula | None:
    from adaptry.compute.tensors.module_arrays import StoredModule

    parts = StoredModule(change.update.adapter, change.update.module, "F32")
    is_matrix = not change.is_transposed and (parts.shape("B")[0], parts.shape("A")[1]) == shape
    if not is_matrix or not parts.is_readable:
        return None
    return RowFormula(
        "sum",
        change.update.module.rank,
        lambda: FormulaArrays(((parts["B"], parts["A"]),), change.update.scale),
    )


def _of_method(change: MethodChange, tensor: OutputTensor) -> RowFormula | None:
    shape, is_embedding = tensor.source.shape, change.module.kind == "embedding"
    if change.formula is None or len(shape) not in (1, 2):
        return None
    if change.orientation != ("embedding" if is_embedding else "linear"):
        return None
    from adaptry.compute.tensors.module_arrays import StoredModule

    parts = StoredModule(change.adapter, change.module, tensor.source.dtype, change.orientation)
    rows, columns = shape if len(shape) == 2 else (shape[0], 1)
    return change.formula(parts, (rows, columns)) if parts.is_readable else None


def _of_replacement(change: Replacement, shape: tuple[int, ...]) -> RowFormula | None:
    """Replaces the weight by the adapter's own, read in the same blocks."""
    from adaptry.compute.tensors.stored_array import FLOATS, as_array

    info = change.adapter.tensors[change.tensor]
    if info.shape != shape or info.dtype not in FLOATS or not info.numel:
        return None
    width = info.size // info.numel

    def write(first: int, rows: Floats) -> None:
        begin, size = info.start + first * rows.shape[1] * width, rows.size * width
        data = change.adapter.content.read(change.adapter.format.weights, begin, size)
        if len(data) != size:
            raise InvalidWeights(
                f"the adapter's {change.tensor} became shorter while it was read; is it being written?"
            )
        rows[:] = as_array(data, info.dtype, rows.shape)

    return RowFormula("mapped", 0, lambda: FormulaArrays(write_rows=write))


def _of_rows(change: RowReplacement, shape: tuple[int, ...]) -> RowFormula | None:
    """Replaces some rows of the base by the adapter's, which are few."""
    from adaptry.compute.tensors.stored_array import FLOATS, as_array

    info, places = change.adapter.tensors[change.tensor], change.rows
    if info.shape != (len(places), *shape[1:]) or info.dtype not in FLOATS or len(shape) != 2:
        return None
    if len(set(places)) != len(places) or min(places) < 0 or max(places) >= shape[0]:
        return None

    def read() -> FormulaArrays:
        import numpy as np

        found = as_array(change.adapter.tensor_bytes(change.tensor), info.dtype, info.shape)
        order = np.argsort(places)
        sorted_places, found = np.asarray(places)[order], found[order]

        def replaced(rows: Floats, first: int) -> Floats:
            begin, end = np.searchsorted(sorted_places, (first, first + len(rows)))
            rows[sorted_places[begin:end] - first] = found[begin:end]
            return rows

        return mapped(replaced)

    return RowFormula("mapped", 0, read)
