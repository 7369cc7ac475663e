"""The page of combine methods is generated from the table."""

from __future__ import annotations

from pathlib import Path

from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.methods_page import render_page

ROOT = Path(__file__).parents[2]


def test_the_page_equals_the_table_of_methods() -> None:
    assert (ROOT / "docs" / "combining.md").read_text() == render_page(), (
        "run: python -m adaptry.compute.combining > docs/combining.md"
    )


def test_every_method_states_its_source_and_parameters() -> None:
    for name, combination in COMBINE_METHODS.items():
        assert combination.name == name
        assert combination.source and combination.title
        for parameter in combination.parameters.values():
            assert (
                parameter.description and parameter.check_value(name, parameter.default) == parameter.default
            )
