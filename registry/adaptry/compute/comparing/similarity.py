"""How alike two adapters are, in the few numbers that tell near-duplicates: from factors, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptry.compute.comparing import aggregate
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas
from adaptry.compute.tensors.lowrank import inner_product


@dataclass(frozen=True, slots=True)
class Similarity:
    """`cosine` of the angle between the updates of all modules (None: one is 0), `ratio` of the other's norm
    to the one's, and how many modules both change.
    """

    cosine: float | None
    ratio: float | None
    shared: int


def measure_similarity(one: AdapterDeltas, other: AdapterDeltas) -> Similarity:
    """In float64; memory holds one site's factors."""
    shared = [site for site in one.modules if site in other.modules]
    product = sum(inner_product(one.factors(site), other.factors(site)) for site in shared)
    norms = _norm(one), _norm(other)
    return Similarity(aggregate.cosine(product, *norms), aggregate.share(norms[1], norms[0]), len(shared))


def _norm(updates: AdapterDeltas) -> float:
    factors = (updates.factors(site) for site in updates.modules)
    return math.sqrt(max(0.0, sum(inner_product(update, update) for update in factors)))
