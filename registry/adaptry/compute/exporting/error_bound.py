"""The largest allowed error of an exported adapter, and remedies if it is exceeded.

The error is ‖Δ − Δ'‖ / ‖Δ‖ (Frobenius) over all modules, of the numbers in the two files.
"""

from __future__ import annotations

import math

from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.checks.runtimes import ENGINES, Runtime
from adaptry.compute.exporting.equality import Equality
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import lora_factors
from adaptry.core.errors import CheckFailed

DEFAULT_MAX_ERROR = 0.1
"""This keeps 99 % of the update's energy Σσ²: the norm of the loss is a tenth of the update's."""


def check_error(
    original: ParentAdapter, equality: Equality, runtime: Runtime, options: ExportOptions
) -> None:
    """Raises `CheckFailed`, with remedies, if the error exceeds the bound."""
    bound = error_bound(options)
    if equality.error <= bound * (1 + 1e-6):  # tolerance for rounding
        return
    ways = [*_larger_ranks(original, runtime, bound), "merge it instead (--format checkpoint)"]
    allowed = math.ceil(equality.error * 100) / 100
    raise CheckFailed(
        f"{original.label} for {runtime} differs from the trained adapter by a relative error of"
        f" {equality.error:.3g}, but at most {bound:.3g} is allowed: {'; '.join(ways)}; or allow it:"
        f" --max-error {allowed:g}"
    )


def error_bound(options: ExportOptions) -> float:
    """The requested bound, else the default, or the loss that the requested share of energy implies."""
    if options.max_error is not None:
        return options.max_error
    accepted = math.sqrt(1 - options.energy) if options.energy is not None else 0.0
    return max(DEFAULT_MAX_ERROR, accepted)


def _larger_ranks(original: ParentAdapter, runtime: Runtime, bound: float) -> list[str]:
    """A remedy with the smallest rank within the bound, as a server option; empty if the rank is not the
    cause.
    """
    if original.adapter.format is not PEFT or plain_reason(original.adapter):
        return ["pass a larger --rank, or --energy 0.99"]
    rank, error = _smallest_rank(original, bound)
    options = [option for option in ENGINES[runtime.engine].options if option.name.endswith("lora_rank")]
    limit = options[0].smallest_from(rank) if options else None
    if limit is None:
        return []
    return [f"start the server with {options[0].flag} {limit} (at rank {rank} the error is {error:.3g})"]


def _smallest_rank(original: ParentAdapter, bound: float) -> tuple[int, float]:
    """The smallest rank of all modules at which the error is within the bound, and the error there."""
    from adaptry.compute.tensors.lowrank import decompose

    found = [decompose(lora_factors(original.adapter, module)) for module in original.adapter.spec.modules]
    energy = sum(each.energy for each in found)
    maximum = max(each.values.shape[-1] for each in found)
    for rank in range(1, maximum):
        error = math.sqrt(sum(each.lost_energy(rank) for each in found) / energy)
        if error <= bound:
            return rank, error
    return maximum, 0.0
