"""Measures how often `noninferior` is wrong, with simulated evaluations, paired by document or not.

    python bench/noninferiority.py [DRAWS]

Each draw is an evaluation of two versions on the same documents, each right or wrong. The baseline is right
in 70 % of them, and the versions disagree in 10 % or 30 %. A *false alarm* lets a version pass that is worse
by exactly the margin, which at a confidence of 0.95 should happen in 5 %; a *miss* stops one that is as good.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from functools import cache

import numpy as np

from adaptry.core.gates import statistics

CONFIDENCE = 0.95
SIZES = (50, 200, 500, 1319, 5000)
MARGINS = (0.01, 0.03, 0.05)
DISAGREEMENTS = (0.1, 0.3)
RIGHT = 0.7


def main() -> None:
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    random = np.random.default_rng(20261128)
    print("| documents | disagree | margin | false alarm, paired | not paired | miss, paired | not paired |")
    print("|---|---|---|---|---|---|---|")
    for n in SIZES:
        for disagreement in DISAGREEMENTS:
            for margin in MARGINS:
                worse = _passing(random, draws, n, disagreement, -margin, margin)
                equal = _passing(random, draws, n, disagreement, 0.0, margin)
                rates = (*worse, *(1 - rate for rate in equal))
                print(
                    f"| {n:,} | {disagreement:.0%} | {margin} | {' | '.join(f'{one:.1%}' for one in rates)} |"
                )


def _passing(
    random: np.random.Generator, draws: int, n: int, disagreement: float, difference: float, margin: float
) -> tuple[float, float]:
    """The shares of evaluations that pass, paired and not, if the true difference is this."""
    only_first, only_second = (disagreement + difference) / 2, (disagreement - difference) / 2
    both = RIGHT - only_second
    cells = (only_first, only_second, both, 1 - only_first - only_second - both)
    counted = Counter(map(tuple, random.multinomial(n, cells, size=draws).tolist()))
    passed = [0, 0]
    for counts, times in counted.items():
        gained, lost, right = counts[:3]
        passed[0] += times * (lost <= _most_lost(n, gained, margin))
        passed[1] += times * (_unpaired_bound(n, gained, lost, right) > -margin)
    return passed[0] / draws, passed[1] / draws


@cache
def _most_lost(n: int, gained: int, margin: float) -> int:
    """The most documents that may be right only in the baseline, if `gained` are right only in the other
    version; -1 if it never passes. The bound falls as this number rises, so it is found by bisection.
    """
    low, high = -1, n - gained + 1
    while high - low > 1:
        middle = (low + high) // 2
        bound = statistics.paired_proportions(n, gained, middle, CONFIDENCE).bound
        low, high = (middle, high) if bound > -margin else (low, middle)
    return low


def _unpaired_bound(n: int, gained: int, lost: int, both: int) -> float:
    first, second = (both + gained) / n, (both + lost) / n
    errors = tuple(math.sqrt(mean * (1 - mean) / (n - 1)) for mean in (first, second))
    return statistics.independent_means(first - second, (errors[0], errors[1]), (n, n), CONFIDENCE).bound


if __name__ == "__main__":
    main()
