"""Transposes weights to [out, in], from any stored orientation, for arithmetic on a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.methods.method import ChangeFunction, ModuleTensors

if TYPE_CHECKING:
    from torch import Tensor


def on_matrix(change: ChangeFunction) -> ChangeFunction:
    """Applies `change` to the weight as [out, in]: a Conv1D is transposed, kernels are flattened to [out,
    in·k…].
    """

    def changed(weight: Tensor, parts: ModuleTensors) -> Tensor:
        if parts.orientation == "conv1d":
            return change(weight.T, parts).T
        if weight.dim() > 2:
            return change(weight.view(weight.shape[0], -1), parts).reshape(weight.shape)
        return change(weight, parts)

    return changed
