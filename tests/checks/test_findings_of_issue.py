"""The commands of docs/what-was-found.md still end as the page says."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from .findings_of_issue import ROWS, Row, run


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number} {row.what}")
def test_a_command_ends_as_the_page_says(row: Row) -> None:
    assert tuple(answer.code for answer in run(row)) == row.exits
