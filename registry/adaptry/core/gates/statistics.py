"""One-sided tests of whether one version is worse than another by at most a margin (non-inferiority).

All differences are positive where the first version is better. Needs scipy (the extra `gates`).
"""

from __future__ import annotations

import math

from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LowerBound:
    """The difference is at least `bound`, with the requested confidence. `method` names the test in words."""

    difference: float
    bound: float
    method: str


def paired_proportions(n: int, gained: int, lost: int, confidence: float) -> LowerBound:
    """The bound for `n` paired documents, each right or wrong: `gained` are right only in the first version,
    `lost` only in the second.

    Tango's score interval (Statistics in Medicine 17, 1998, 891-908), which also holds for few documents, and
    does not shrink to a point if no document differs.
    """
    from scipy.special import ndtri

    z = float(ndtri(confidence))

    def is_rejected(delta: float) -> bool:
        return _score(n, gained, lost, delta) > z

    low, high = -1.0, (gained - lost) / n
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
    return LowerBound((gained - lost) / n, low, f"paired, score test, {n:,} documents")


def _score(n: int, gained: int, lost: int, delta: float) -> float:
    """The score statistic of the hypothesis that the difference is `delta`."""
    linear = -gained - lost + (2 * n - gained + lost) * delta
    constant = -lost * delta * (1 - delta)
    root = math.sqrt(max(0.0, linear**2 - 8 * n * constant))
    variance = n * (2 * (root - linear) / (4 * n) + delta * (1 - delta))
    distance = gained - lost - n * delta
    return math.inf if variance <= 0 and distance > 0 else distance / math.sqrt(max(variance, 1e-300))


def paired_means(n: int, mean: float, deviation: float, confidence: float, *, is_bounded: bool) -> LowerBound:
    """The bound from the mean and standard deviation of the differences on the same `n` documents: Student's
    t-test.

    If no document differs, the bound is that of `paired_proportions` for scores from 0 to 1 (`is_bounded`):
    unseen documents may still differ.
    """
    from scipy.special import stdtrit

    if deviation == 0 and is_bounded and mean == 0:
        return paired_proportions(n, 0, 0, confidence)
    width = float(stdtrit(n - 1, confidence)) * deviation / math.sqrt(n)
    return LowerBound(mean, mean - width, f"paired t-test, {n:,} documents")


def independent_means(
    difference: float,
    errors: tuple[float, float],
    sizes: tuple[int | None, int | None],
    confidence: float,
) -> LowerBound:
    """The bound from the standard errors of both values: Welch's t-test (Biometrika 34, 1947), or the normal
    distribution where a number of documents is unknown.
    """
    from scipy.special import ndtri, stdtrit

    error, largest = math.hypot(*errors), max(errors)
    counts = [size for size in sizes if size is not None and size > 1]
    if len(counts) == 2 and largest > 0:
        shares = [(one / largest) ** 2 for one in errors]  # scaled, so that no power underflows or overflows
        freedom = sum(shares) ** 2 / sum(s**2 / (size - 1) for s, size in zip(shares, counts, strict=True))
        quantile, method = float(stdtrit(freedom, confidence)), "not paired, Welch's t-test"
    else:
        quantile, method = float(ndtri(confidence)), "not paired, normal distribution"
    return LowerBound(difference, difference - quantile * error, method)
