"""Rounds an update to a file's dtype, and measures the error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

from adaptry.compute.tensors.dtypes import torch_dtype
from adaptry.compute.tensors.lowrank import Factors, concatenate, inner_product
from adaptry.core.errors import CheckFailed, InvalidWeights

Delta = TypeVar("Delta", Factors, Tensor)


def round_factors(update: Factors, dtype: str) -> Factors:
    """The update with scale 1 and its values rounded to `dtype`."""
    whole, to = update.with_unit_scale(), torch_dtype(dtype)
    return Factors(whole.up.to(to).float(), whole.down.to(to).float())


def measure_error(exact: Factors, approximation: Factors) -> Mapping[str, float]:
    """The figures of a module whose update should be `exact` [..., out, in]: `energy` ‖Δ‖² and `lost`
    ‖Δ − Δ'‖², both summed in float64, and the `rank` of the approximation Δ'. Equal factors, including the
    scale, have no loss.
    """
    folded = exact.with_unit_scale()
    if (
        approximation.scale == folded.scale
        and approximation.up.equal(folded.up)
        and approximation.down.equal(folded.down)
    ):
        return {"energy": inner_product(exact, exact), "lost": 0.0, "rank": float(approximation.rank)}
    difference = concatenate([exact.double(), approximation.double().scaled_by(-1.0)])
    lost = max(0.0, inner_product(difference, difference))
    return {"energy": inner_product(exact, exact), "lost": lost, "rank": float(approximation.rank)}


def add_rounding_error(
    figures: Mapping[str, float], exact: Factors, approximation: Factors
) -> Mapping[str, float]:
    """The `figures` of `exact`, plus the loss from rounding it to `approximation`.

    The truncated part is orthogonal to the kept part, so the two losses add up, to first order in the
    rounding.
    """
    if approximation.up.equal(exact.up) and approximation.down.equal(exact.down):
        return figures
    found = measure_error(exact, approximation)
    return {**found, **figures, "lost": figures.get("lost", 0.0) + found["lost"]}


def check_values(update: Delta, label: str) -> Delta:
    """Checks an `update` that was read from a file. Raises `InvalidWeights` if it has NaN or infinity."""
    if not _is_finite(update):
        raise InvalidWeights(
            f"{label} has NaN or infinite values, so it cannot be used:"
            " the training diverged, or the file is damaged"
        )
    return update


def check_fits(result: Factors | Tensor, label: str, dtype: str) -> None:
    """Raises `CheckFailed` if a computed update exceeds the range of `dtype`."""
    if not _is_finite(result):
        raise CheckFailed(
            f"the result at {label} is too large for {dtype}: choose smaller weights"
            + ("" if dtype == "F32" else ", or --dtype float32 (or bfloat16)")
        )


def _is_finite(update: Factors | Tensor) -> bool:
    if isinstance(update, Factors):
        return _has_finite_values(update.up) and _has_finite_values(update.down)
    return _has_finite_values(update)


def _has_finite_values(values: Tensor) -> bool:
    """Whether all values are finite. If one is NaN, the minimum and maximum are NaN. Calling `isfinite` on
    every value takes ten times as long.
    """
    return not values.numel() or all(bool(extreme.isfinite()) for extreme in values.aminmax())
