"""What a file of some dtype keeps of an update, and how far that is from what the update should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

from adaptry.compute.tensors.dtypes import torch_dtype
from adaptry.compute.tensors.lowrank import Factors, concatenate, inner_product
from adaptry.core.errors import CheckFailed, InvalidWeights

Delta = TypeVar("Delta", Factors, Tensor)


def round_factors(update: Factors, dtype: str) -> Factors:
    """With scale 1, and the values that a file of `dtype` keeps."""
    whole, to = update.with_unit_scale(), torch_dtype(dtype)
    return Factors(whole.up.to(to).float(), whole.down.to(to).float())


def measure_error(own: Factors, made: Factors) -> Mapping[str, float]:
    """The figures of a module that should be `own`. Equal factors with the scale in them lost nothing."""
    folded = own.with_unit_scale()
    if made.scale == folded.scale and made.up.equal(folded.up) and made.down.equal(folded.down):
        return {"energy": inner_product(own, own), "lost": 0.0, "rank": float(made.rank)}
    difference = concatenate([own.double(), made.double().scaled_by(-1.0)])
    lost = max(0.0, inner_product(difference, difference))
    return {"energy": inner_product(own, own), "lost": lost, "rank": float(made.rank)}


def add_rounding_error(figures: Mapping[str, float], own: Factors, made: Factors) -> Mapping[str, float]:
    """`figures` of `own`, of which the rounded `made` is written, with what is lost by that.

    What was cut off is orthogonal to what was kept, so the two losses add up, to first order in the rounding.
    """
    if made.up.equal(own.up) and made.down.equal(own.down):
        return figures
    found = measure_error(own, made)
    return {**found, **figures, "lost": figures.get("lost", 0.0) + found["lost"]}


def check_values(update: Delta, what: str) -> Delta:
    """`update`, as read from a file. Raises `InvalidWeights` where it holds NaN or infinity."""
    if not _is_finite(update):
        raise InvalidWeights(
            f"{what} holds NaN or infinite values, of which nothing can be made:"
            " training went wrong, or the file did"
        )
    return update


def check_fits(made: Factors | Tensor, where: str, dtype: str) -> None:
    """Raises `CheckFailed` where a computed update, rounded to `dtype`, is beyond its numbers."""
    if not _is_finite(made):
        raise CheckFailed(
            f"the result at {where} is too large for {dtype}: choose smaller weights"
            + ("" if dtype == "F32" else ", or --dtype float32 (or bfloat16)")
        )


def _is_finite(update: Factors | Tensor) -> bool:
    if isinstance(update, Factors):
        return bool(update.up.isfinite().all() and update.down.isfinite().all())
    return bool(update.isfinite().all())
