"""Which tensors of a plan are changed by a formula, so that compiled code merges them without torch."""

from __future__ import annotations

from adaptry.adapters.methods.row_formula import RowFormula
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.whole_changes import MethodChange


def formula_of(tensor: OutputTensor) -> RowFormula | None:
    """The formula of a tensor's only change, from headers; None if it has other changes, or no formula."""
    match tensor.changes:
        case (MethodChange(formula=formula) as change,) if formula is not None and change.weight == 1.0:
            pass
        case _:
            return None
    shape, is_stored = tensor.source.shape, tensor.packed is None and tensor.rows is None
    if not is_stored or len(shape) != 2 or change.orientation != "linear":
        return None
    from adaptry.compute.tensors.module_arrays import StoredModule

    parts = StoredModule(change.adapter, change.module, tensor.source.dtype)
    return formula(parts, (shape[0], shape[1])) if parts.is_readable else None
