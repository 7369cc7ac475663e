"""`docs/methods.md` matches the table for every method, its measured results are as expected, and the
README's table follows from the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.method import Method
from adaptry_cli.capabilities import method_row

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text()
AGAIN = "run: python bench/conformance.py --write docs/methods.md"

sys.path.append(str(ROOT / "bench"))

from methods_page import rows, with_table  # noqa: E402  (beside the script that writes the page)


def run_again(names: str) -> str:
    """The command that writes the rows of some methods, and README.md's table after them."""
    return f"run: python bench/conformance.py --methods {names} --write docs/methods.md"


ROWS = {row[1]: row for row in rows(PAGE)}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_the_page_of_methods_equals_the_table(method: Method) -> None:
    row = ROWS.get(method.name.upper())
    assert row, f"docs/methods.md has no row for {method.name}; {run_again(method.name)}"
    title, kind, *_, merged, lora, _, _ = row
    assert (title, kind, merged, lora) == method_row(method), run_again(method.name)


def test_the_page_has_no_removed_method() -> None:
    assert ROWS.keys() <= {name.upper() for name in METHODS}, AGAIN


def test_every_case_was_described_and_checked() -> None:
    assert {cell for row in ROWS.values() for cell in row[2:4]} == {"yes"}, AGAIN


def test_no_case_on_the_page_failed() -> None:
    assert "| wrong |" not in PAGE


def test_the_readmes_table_equals_the_summary_of_the_page() -> None:
    readme = (ROOT / "README.md").read_text()
    lacking = [method.name for method in METHODS.values() if method.title not in readme]
    assert not lacking, run_again(",".join(lacking))
    assert with_table(readme, PAGE) == readme, AGAIN
