"""`docs/methods.md` says of every method what the table says; what only a run can tell was as promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.methods import METHODS
from adaptry.methods.method import Method
from adaptry_cli.abilities import words

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def rows() -> dict[str, list[str]]:
    """The cells of each row, by peft_type."""
    lines = (line for line in PAGE.read_text().splitlines() if line.startswith("| "))
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[1]: row for row in cells if row[0] != "Method"}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_the_page_says_of_a_method_what_the_table_says(method: Method) -> None:
    title, kind, *_, merged, lora, _, _ = rows()[method.name.upper()]
    assert (title, kind, merged, lora) == words(method), (
        "run: python bench/conformance.py --write docs/methods.md"
    )


def test_the_page_has_no_method_that_is_gone() -> None:
    assert sorted(rows()) == sorted(name.upper() for name in METHODS)


def test_every_case_was_described_and_checked() -> None:
    assert {cell for row in rows().values() for cell in row[2:4]} <= {"yes", ""}
