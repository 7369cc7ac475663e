"""Updates that cancel each other, as A and -A do: the factors have values, but their product changes nothing.

The energy of such a module is reported as 0. A result in which every module cancels is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule
from adaptry.compute.tensors.tolerances import NEGLIGIBLE
from adaptry.core.errors import CheckFailed

if TYPE_CHECKING:
    from adaptry.compute.combining.plan import CombinePlan, PlannedSite
    from adaptry.compute.tensors.lowrank import Factors


NO_EFFECT = (
    "the updates are 0 or cancel each other in every module, so the result would change nothing: "
    "change the weights or the inputs"
)
"""The error for such a result."""

_CLEARLY = 1e-4
"""A share of ‖up‖² ‖down‖², far above the rounding of float32."""


def may_cancel(made: Factors) -> bool:
    """Whether the product of factors is so small, compared with them, that the updates may have cancelled.
    Costs one product of each factor with itself, in float32.
    """
    up, down = made.up.mT @ made.up, made.down @ made.down.mT
    bound = up.diagonal(dim1=-2, dim2=-1).sum() * down.diagonal(dim1=-2, dim2=-1).sum()
    return not bool((up * down).sum() > _CLEARLY * bound)


def is_cancelled(plan: CombinePlan, planned: PlannedSite, energy: float) -> bool:
    """Whether `energy`, ‖Δ‖² of a site's result, is only rounding, compared with its weighted inputs."""
    from adaptry.compute.tensors.lowrank import inner_product

    def norm(update: Factors) -> float:
        return math.sqrt(max(0.0, inner_product(update, update)))

    updates = [plan.updates[place].factors(planned.site) for place in planned.inputs]
    pairs = zip(updates, planned.weights, strict=True)
    largest = sum(abs(weight) * norm(update) for update, weight in pairs)
    is_finite = math.isfinite(energy) and math.isfinite(largest)
    return is_finite and math.sqrt(max(0.0, energy)) <= NEGLIGIBLE * largest


def refuse_cancelled(modules: Callable[[], Iterator[ComputedModule]]) -> Iterator[ComputedModule]:
    """Passes the modules on. Raises `CheckFailed` after the last one if the energy of each is 0."""
    is_empty = True
    for module in modules():
        is_empty = is_empty and module.figures.get("energy") == 0.0
        yield module
    if is_empty:
        raise CheckFailed(NO_EFFECT)
