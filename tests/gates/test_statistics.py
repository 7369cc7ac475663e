"""Statistical tests of differences, compared with published tables."""

from __future__ import annotations

import math

import pytest

from adaptry.core.gates.statistics import independent_means, paired_means, paired_proportions


@pytest.mark.parametrize(
    ("n", "gained", "lost", "confidence", "lower"),
    [
        # Airway hyper-responsiveness before and after transplantation (Bentur et al., 2009): Fagerland,
        # Lydersen and Laake, Statistics in Medicine 33 (2014), 2850-2875, table IV, Tango: -0.517 to -0.026.
        (21, 1, 7, 0.975, -0.517),
        (21, 7, 1, 0.975, 0.026),
        # Complete response before and after consolidation therapy (Cavo et al., 2012): 59, 6, 16, 80
        # patients. Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter
        # 8: -0.1240 to -0.0054 in the tests of their R package contingencytables (tests/testthat/test-ch8.R).
        (161, 6, 16, 0.975, -0.1240),
        (161, 16, 6, 0.975, 0.0054),
    ],
)
def test_paired_proportions_have_tangos_published_interval(
    n: int, gained: int, lost: int, confidence: float, lower: float
) -> None:
    assert paired_proportions(n, gained, lost, confidence).bound == pytest.approx(lower, abs=5e-4)


@pytest.mark.parametrize(("n", "z"), [(10, 1.6449), (100, 1.6449), (1000, 1.6449)])
def test_documents_without_differences_count_only_by_their_number(n: int, z: float) -> None:
    """With no discordant pair, Tango's bound is -z²/(n+z²), his equation for that case."""
    assert paired_proportions(n, 0, 0, 0.95).bound == pytest.approx(-(z**2) / (n + z**2), rel=1e-3)


@pytest.mark.parametrize(
    ("n", "t"),
    [(2, 6.314), (6, 2.015), (11, 1.812), (31, 1.697), (121, 1.658)],  # Student's table, one-sided 95 %
)
def test_paired_means_use_students_table(n: int, t: float) -> None:
    found = paired_means(n, 0.2, 1.5, 0.95, is_bounded=False)
    assert found.bound == pytest.approx(0.2 - t * 1.5 / math.sqrt(n), abs=1e-3)


def test_means_of_different_documents_use_welchs_degrees_of_freedom() -> None:
    """Two samples of 11 with equal errors have 20 degrees of freedom: t is 1.725 (Student's table). Without
    sizes it is 1.645, of the normal distribution.
    """
    error = 0.1 * math.sqrt(2)
    assert independent_means(0.0, (0.1, 0.1), (11, 11), 0.95).bound == pytest.approx(-1.725 * error, abs=1e-4)
    assert independent_means(0.0, (0.1, 0.1), (None, 11), 0.95).bound == pytest.approx(
        -1.645 * error, abs=1e-4
    )
