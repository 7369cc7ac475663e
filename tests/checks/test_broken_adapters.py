"""The commands of docs/broken-adapters.md still print what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from .broken_adapters import ROWS, Row, page_rows

PAGE = Path(__file__).parents[2] / "docs" / "broken-adapters.md"


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.heading}: {row.what}")
def test_a_command_answers_as_the_page_says(row: Row) -> None:
    found = page_rows(row)
    codes = tuple(int(line.split(" | ")[2]) for line in found)
    assert codes == row.exits
    page = PAGE.read_text(encoding="utf-8")
    again = "write it again: python -m tests.checks.broken_adapters > docs/broken-adapters.md"
    assert all(line in page for line in found), again
