"""Formatting of numbers for people."""

from __future__ import annotations

import pytest

from adaptry.core.display import format_decimal


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.0000"), (-0.075021, "-0.0750"), (-3e-7, "0.0000"), (3e-16, "< 0.0001"), (0.0, "0.0000")],
)
def test_decimals_are_aligned_and_a_small_distance_is_not_written_as_zero(value: float, text: str) -> None:
    assert format_decimal(value) == text
