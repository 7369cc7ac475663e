"""How much of an adapter a rank keeps, from its singular values: a curve that helps to choose a rank.

"How much" is the share of the energy ‖Δ‖², summed over all modules. The worst module is shown too, since a
sum can hide a module that is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptry.compute.lazy_adapters.deltas import AdapterDeltas
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The squares of a module's singular values, in descending order, summed over its experts."""

    module: str
    squares: tuple[float, ...]

    @property
    def energy(self) -> float:
        return sum(self.squares)

    def kept(self, rank: int) -> float:
        """The share that the closest update of `rank` keeps; 1 for a zero update."""
        total = self.energy
        return sum(self.squares[:rank]) / total if total else 1.0


@dataclass(frozen=True, slots=True)
class RankPoint:
    """The share that a rank keeps over all modules, and the module that keeps the smallest share."""

    rank: int
    kept: float
    worst: str
    worst_kept: float


def compute_spectra(updates: AdapterDeltas) -> tuple[Spectrum, ...]:
    """The spectrum of every module, in the order of their paths; reads all factors, one module at a time."""
    from adaptry.compute.tensors.lowrank import decompose

    found = []
    for site in sorted(updates.modules, key=lambda site: site.key):
        squares = decompose(updates.factors(site)).values.square()
        if squares.ndim > 1:
            squares = squares.sum(0)
        found.append(Spectrum(site.key, tuple(squares.tolist())))
    return tuple(found)


def rank_point(spectra: Sequence[Spectrum], rank: int) -> RankPoint:
    """The share that `rank` keeps."""
    total = sum(each.energy for each in spectra)
    kept = sum(sum(each.squares[:rank]) for each in spectra) / total if total else 1.0
    worst = min(spectra, key=lambda each: each.kept(rank))
    return RankPoint(rank, kept, worst.module, worst.kept(rank))


def rank_curve(spectra: Sequence[Spectrum]) -> tuple[RankPoint, ...]:
    """The points at 1, 2, 4, … and at the adapter's largest rank."""
    maximum = max(len(each.squares) for each in spectra)
    ranks = [1 << step for step in range(maximum.bit_length()) if 1 << step < maximum]
    return tuple(rank_point(spectra, rank) for rank in (*ranks, maximum))


def smallest_allowed_rank(
    spectra: Sequence[Spectrum], allowed: Sequence[int], energy: float = 1.0
) -> RankPoint:
    """The smallest allowed rank that keeps this share over all modules; if none does, the largest allowed."""
    points = [rank_point(spectra, rank) for rank in sorted(set(allowed))]
    enough = (each for each in points if each.kept >= energy - 1e-12)
    return next(enough, points[-1])


def as_json(points: Sequence[RankPoint]) -> list[Mapping[str, object]]:
    """Rows with the names of the fields, for `--json`."""
    return [
        {
            "rank": each.rank,
            "kept_energy": each.kept,
            "worst_module": each.worst,
            "worst_kept_energy": each.worst_kept,
        }
        for each in points
    ]
