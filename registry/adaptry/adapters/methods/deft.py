"""DEFT: a subspace of the outputs replaced by a trained one (NeurIPS 2025, DEFT; PEFT `tuners/deft`).

With `para` the subspace is only removed (PaRa, arXiv 2406.05641).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, common_number
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Doubles


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """PEFT caps the rank at the number of outputs."""
    fan_out, rank = shapes["P"]
    common_number(rank, min(config.rank(), fan_out))
    if config.flag("para"):
        if "R" in shapes:
            raise ValueError("PaRa has no trained subspace")
        return ModuleSize(rank, 0, fan_out)
    down, fan_in = shapes["R"]
    return ModuleSize(common_number(rank, down), fan_in, fan_out)


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    method = config.fields.get("decomposition_method", "relu")
    if method in ("relu", "qr"):
        return None
    return (
        f"its decomposition_method is {str(method)[:40]!a}, but only relu and qr are supported:"
        " merge it with PEFT"
    )


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """Δ = Q(sR − rightᵀW), rounded to the weight's dtype before it is added, as in PEFT."""
    import torch

    out = right = parts["P"]
    if parts.config.fields.get("decomposition_method") == "qr":
        out = right = torch.linalg.qr(out).Q
    else:
        right = torch.relu(right)
    removed = right.T @ weight.float()
    if parts.config.flag("para"):
        update = -(out @ removed)
    else:
        update = out @ (parts["R"] * _injection(parts) - removed)
    return weight + update.to(weight.dtype)


def _injection(parts: ModuleTensors | ModuleArrays) -> float:
    alpha = parts.config.number("alpha", 0)
    return alpha / parts.module.rank if alpha else 1.0


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    config = parts.config
    fan_out, rank = parts.shape("P")
    if config.fields.get("decomposition_method") == "qr":
        return None  # if columns are nearly dependent, only the same LAPACK finds the same Q
    if fan_out != shape[0] or (not config.flag("para") and parts.shape("R") != (rank, shape[1])):
        return None

    def read() -> FormulaArrays:
        import numpy as np

        out = parts["P"].astype(np.float64)
        right = np.maximum(out, 0)

        def change(removed: Doubles) -> FormulaArrays:
            added = 0 if config.flag("para") else parts["R"].astype(np.float64) * _injection(parts)
            return FormulaArrays(((out.astype(np.float32), (added - removed).astype(np.float32)),))

        return FormulaArrays(left=right.astype(np.float32), of_product=change)

    return RowFormula("rounded", rank, read, uses_numpy=True)


METHOD = Method(
    name="deft",
    title="DEFT",
    key_patterns={"deft_P": "P", "deft_R": "R"},
    module_size=_module_size,
    is_relative=lambda traits: True,
    weight=_weight,
    formula=_formula,
    lora_form="given_base",
    lora_rank=lambda module, config: module.rank,
    unmergeable_reason=_unmergeable_reason,
    needs_base=True,
    tolerance="within rounding, and at least as exact as PEFT",
)
