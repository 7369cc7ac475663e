"""The measures, computed by definition on dense matrices in float64."""

from __future__ import annotations

import numpy
from numpy import ndarray

Matrices = dict[str, ndarray]


def joined(*adapters: Matrices) -> list[ndarray]:
    """Adapters as vectors over all modules that any of them has."""
    shapes = {module: matrix.shape for matrices in adapters for module, matrix in matrices.items()}
    return [
        numpy.concatenate(
            [matrices.get(name, numpy.zeros(shape)).ravel() for name, shape in sorted(shapes.items())]
        )
        for matrices in adapters
    ]


def norm(update: ndarray) -> float:
    return float(numpy.linalg.norm(update))


def cosine(one: ndarray, other: ndarray) -> float:
    return float((one * other).sum() / norm(one) / norm(other))


def conflict(*updates: ndarray) -> float:
    """The share of Σ|Δ| on elements where the updates have both signs."""
    stacked = numpy.stack(updates)
    weight = abs(stacked).sum(0)
    return float(weight[(stacked > 0).any(0) & (stacked < 0).any(0)].sum() / weight.sum())


def overlap(one: ndarray, other: ndarray) -> float:
    """The mean squared cosine of the principal angles between the column spaces."""
    bases = []
    for matrix in (one, other):
        left, values, _ = numpy.linalg.svd(matrix, full_matrices=False)
        bases.append(left[:, values > 1e-6 * values[0]])
    cosines = numpy.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float((cosines**2).mean())
