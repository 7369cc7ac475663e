"""What each state allows, in the code and on the page."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from adaptry.core.lifecycle import STATE_RULES

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def test_the_page_of_states_equals_the_table() -> None:
    lines = PAGE.read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| state |")) + 2
    shown = lines[start : start + len(STATE_RULES) + 1]
    words = {True: "yes", False: "no"}
    rows = [
        f"| {state} | {words[rule.is_latest]} | {words[rule.is_searchable]} | {words[rule.allows_aliases]} |"
        f" {rule.readers} |"
        for state, rule in STATE_RULES.items()
    ]
    assert shown == [*rows, ""]


def test_each_state_allows_no_more_than_the_one_before() -> None:
    order = ("everyone", "maintainers and owners", "owners")
    steps = [
        (rule.is_latest, rule.is_searchable, rule.allows_aliases, -order.index(rule.readers))
        for rule in STATE_RULES.values()
    ]
    for earlier, later in pairwise(steps):
        assert all(before >= after for before, after in zip(earlier, later, strict=True))
