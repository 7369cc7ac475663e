"""The similarity of two adapters in a few numbers that identify near-duplicates, computed exactly from
factors.
"""

from __future__ import annotations

import math

from adaptry.compute.comparison import aggregate
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas
from adaptry.compute.tensors.lowrank import inner_product
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Similarity:
    """`cosine` of the angle between the updates of all modules (None: one update is 0), `ratio` of the second
    norm to the first, and the number of modules that both change.
    """

    cosine: float | None
    ratio: float | None
    shared: int


def measure_similarity(one: AdapterDeltas, other: AdapterDeltas) -> Similarity:
    """The similarity, computed in float64; only the factors of one site are in memory."""
    shared = [site for site in one.modules if site in other.modules]
    product = sum(inner_product(one.factors(site), other.factors(site)) for site in shared)
    norms = _norm(one), _norm(other)
    return Similarity(aggregate.cosine(product, *norms), aggregate.share(norms[1], norms[0]), len(shared))


def _norm(updates: AdapterDeltas) -> float:
    factors = (updates.factors(site) for site in updates.modules)
    return math.sqrt(max(0.0, sum(inner_product(update, update) for update in factors)))
