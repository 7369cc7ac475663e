"""Tables in the documentation that list names of the product list all of them."""

from __future__ import annotations

import re
from pathlib import Path

from adaptry.core.access.actions import ACTIONS as RIGHTS
from adaptry.registry.audit_actions import ACTIONS, OF_EVENTS

DOCS = Path(__file__).parents[1] / "docs"


def first_cells(page: str) -> list[str]:
    return re.findall(r"^\| (`[^|]+?) \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_audit_page_describes_every_action() -> None:
    rows = re.findall(
        r"^\| `(\w+\.\w+)` \| (.+) \|$", (DOCS / "audit.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert dict(rows) == dict(ACTIONS)


def test_the_page_of_permissions_has_a_row_for_every_action() -> None:
    assert {cell.strip("`") for cell in first_cells("permissions.md")} >= set(RIGHTS)


def test_the_page_of_events_has_every_kind() -> None:
    """A cell such as `alias.moved`, `.removed` names two kinds."""
    kinds: set[str] = set()
    for cell in first_cells("events.md"):
        scope = ""
        for name in re.findall(r"`([\w.]+)`", cell):
            scope = name.partition(".")[0] or scope
            kinds.add(name if not name.startswith(".") else scope + name)

    assert kinds == set(OF_EVENTS)
