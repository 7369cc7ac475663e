"""RoAd: pairs of outputs, and of the bias, rotated and scaled (arXiv 2409.00119; PEFT `tuners/road`)."""

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
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula, mapped

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Doubles, Floats

_MAX_BIAS = 65_536
"""The number of float32 elements in a block of a merge."""

_HALVES = {"road_1": 1, "road_2": 2, "road_4": 4}
"""Number of angles per pair of outputs."""


def _variant(config: AdapterConfig) -> str:
    return str(config.fields.get("variant", "road_1"))


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (angles,) = shapes["theta"]
    if config.rank("group_size", 64) % 2:
        raise ValueError("a group must have an even number of outputs, since pairs are rotated")
    return ModuleSize(0, 0, 2 * common_number(angles, *shapes["alpha"]) // _HALVES[_variant(config)])


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    group = config.rank("group_size", 64)
    if weight.fan_out % group == 0:
        return None
    return f"rotates groups of {group:,} outputs, but this base's weight has {weight.fan_out:,}"


def _columns(parts: ModuleTensors, group: int) -> tuple[Tensor, Tensor]:
    """α cos θ [out] and α sin θ [out]: shared by a pair, per output, or per position in the matrix."""
    theta, alpha = parts["theta"], parts["alpha"]
    match _variant(parts.config):
        case "road_1":
            theta, alpha = (
                part.reshape(-1, group // 2).repeat_interleave(2, dim=0).flatten() for part in (theta, alpha)
            )
        case "road_4":
            theta, alpha = theta.reshape(-1, 2, group), alpha.reshape(-1, 2, group)
            first = alpha[:, 0].flatten() * theta[:, 0].cos().flatten()
            return first, alpha[:, 1].flatten() * theta[:, 1].sin().flatten()
    return alpha * theta.cos(), alpha * theta.sin()


def _rotation(parts: ModuleTensors) -> Tensor:
    """The rotation [out, out]: in each group, the first half of the outputs is rotated against the second."""
    import torch

    group = parts.config.rank("group_size", 64)
    cosines, sines = _columns(parts, group)
    swapped = sines.reshape(-1, 2, group // 2)[:, [1, 0], :].flatten()
    turned = torch.diag(swapped).reshape(-1, 2, group // 2, len(sines))[:, [1, 0], :, :]
    turned[:, 0] *= -1
    return torch.diag(cosines) + turned.reshape(len(sines), len(sines))


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    """R is rounded to the weight's dtype before it is used, as in PEFT."""
    return _rotation(parts).to(weight.dtype) @ weight


def _bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    return _rotation(parts).to(bias.dtype) @ bias


def _scales(parts: ModuleArrays) -> tuple[Floats, Floats]:
    """The factor of each output, and that of its partner, rounded to the weight's dtype as in PEFT."""
    import numpy as np

    half = parts.config.rank("group_size", 64) // 2
    theta, alpha = parts["theta"].astype(np.float64), parts["alpha"]
    # In half precision the product is rounded to float32, as in PEFT, so that the scales are the same.
    kind = np.float64 if parts.dtype == "F32" else np.float32
    own, other = ((alpha * turned(theta).astype(kind)).astype(np.float32) for turned in (np.cos, np.sin))
    match _variant(parts.config):
        case "road_1":
            own, other = (np.repeat(part.reshape(-1, half), 2, axis=0).ravel() for part in (own, other))
        case "road_4":
            own, other = (
                own.reshape(-1, 2, 2 * half)[:, 0].ravel(),
                other.reshape(-1, 2, 2 * half)[:, 1].ravel(),
            )
    other = (other.reshape(-1, 2, half) * np.array([[-1], [1]], np.float32)).ravel()
    return parts.rounded(own), parts.rounded(other)


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    group = parts.config.rank("group_size", 64)
    if shape[0] % group:
        return None

    def read() -> FormulaArrays:
        own, other = _scales(parts)
        return FormulaArrays(own_scales=own, vector=other, half=group // 2)

    return RowFormula("paired", 0, read, uses_numpy=True)


def _bias_formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """Takes the bias as one block of rows. Only the bias of a vocabulary can be longer than a block."""
    group = parts.config.rank("group_size", 64)
    if shape[0] % group or shape[0] > _MAX_BIAS:
        return None

    def read() -> FormulaArrays:
        import numpy as np

        own, other = _scales(parts)

        def change(rows: Floats, first: int) -> Doubles:
            partners = rows.astype(np.float64).reshape(-1, 2, group // 2)[:, ::-1].reshape(-1, 1)
            return own[:, None] * rows + other[:, None] * partners

        return mapped(change)

    return RowFormula("mapped", 0, read, uses_numpy=True)


METHOD = Method(
    name="road",
    title="RoAd",
    key_patterns={"road_theta": "theta", "road_alpha": "alpha"},
    module_size=_module_size,
    products=(("theta",),),
    ones="alpha",
    weight=_weight,
    formula=_formula,
    bias=_bias,
    bias_formula=_bias_formula,
    mismatch=lambda module, shapes, config, weight: _cannot_adapt(weight, config),
    cannot_adapt=_cannot_adapt,
    needs_base=True,
    tolerance="within rounding, and at least as exact as PEFT",
)
