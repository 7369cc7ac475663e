"""The tables of faults (`tests.mutants.access`, `tests.mutants.refusals`) match the current code.

Checking that each fault is detected takes minutes: run `python -m` with either name.
"""

from __future__ import annotations

import pytest
from tests.mutants.access import FAULTS, AccessFault
from tests.mutants.copy_of_tree import ROOT
from tests.mutants.refusals import REFUSALS, page

CONTRACT = ROOT / "registry/adaptry/testing/contract"  # whose tests every implementation inherits


def test_the_page_of_refusals_equals_the_table() -> None:
    assert (ROOT / "docs" / "refusals.md").read_text() == page(), (
        "write it again: python -m tests.mutants.refusals --page > docs/refusals.md"
    )


@pytest.mark.parametrize("fault", (*FAULTS, *REFUSALS), ids=lambda fault: fault.check)
def test_each_fault_matches_one_check_and_an_existing_test(fault: AccessFault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.before) == 1
    file, *_, test = fault.test.split("::")
    files = [ROOT / file, *CONTRACT.glob("*.py")]
    assert any(f"def {test}(" in each.read_text() for each in files)
