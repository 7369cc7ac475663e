"""The page of repairs and formats is generated from the tables."""

from __future__ import annotations

from pathlib import Path

from adaptry.compute.exporting.formats_page import render_page


def test_the_page_is_current() -> None:
    written = Path(__file__).parents[2] / "docs" / "exporting.md"
    assert written.read_text() == render_page(), (
        "run: python -m adaptry.compute.exporting > docs/exporting.md"
    )
