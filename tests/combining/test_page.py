"""The page of all methods of combining is that of the table."""

from __future__ import annotations

from pathlib import Path

from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.methods_page import render_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "combining.md").read_text() == render_page(), (
        "run: python -m adaptry.compute.combining > docs/combining.md"
    )


def test_every_way_says_where_it_comes_from_and_what_it_takes() -> None:
    for name, combination in COMBINE_METHODS.items():
        assert combination.name == name
        assert combination.source and combination.title
        for parameter in combination.parameters.values():
            assert (
                parameter.description and parameter.check_value(name, parameter.default) == parameter.default
            )
