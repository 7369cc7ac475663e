"""`docs/hub-clients.md` has every line and every client, and came from a run in which none failed."""

from __future__ import annotations

from pathlib import Path

from .lines import CLIENTS, LINES

PAGE = (Path(__file__).parents[2] / "docs" / "hub-clients.md").read_text()
AGAIN = "run: python -m tests.hub --write docs/hub-clients.md"
CELLS = ("✓", "–", "")


def test_every_line_is_there_with_its_reason_if_it_is_left_out() -> None:
    for line in LINES:
        written = (
            f"* {line.number}. {line.title}: {line.left_out}."
            if line.left_out
            else f"| {line.number}. {line.title} |"
        )
        assert written in PAGE, AGAIN


def test_every_client_has_a_column_and_none_failed() -> None:
    rows = [
        [cell.strip() for cell in row.strip("|").split(" |")]
        for row in PAGE.splitlines()
        if row.startswith("| ")
    ]
    heads = [cell for row in rows for cell in row[1:] if row[0].strip() == ""]
    assert len(heads) == len(CLIENTS), AGAIN
    assert all(any(character.isdigit() for character in head) for head in heads), AGAIN
    marks = {cell[:1] for row in rows for cell in row[1:] if row[0][:1].isdigit()}
    assert marks <= set(CELLS), AGAIN
