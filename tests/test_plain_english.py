"""Docstrings, comments and messages avoid a few phrases that read like a translation and keep coming back."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = (
    *(f"registry/adaptry/{room}" for room in ("core", "adapters", "bases", "checks", "compute", "registry")),
    *(f"registry/adaptry/{room}" for room in ("operations", "jobs", "storage", "facade", "testing")),
    *(f"registry/adaptry/integrations/{part}" for part in ("engine_test", "inprocess", "rl", "training")),
    "api/adaptry_api",
    "cli/adaptry_cli",
    "bench",
    "examples",
)
EXCEPT = {ROOT / "cli/adaptry_cli/times.py"}
"""It shows a time as `just now`."""
INSTEAD = {
    "without a word": "silently",
    "for want of": "without",
    "as it is said": "as given",
    "the way out": "a remedy",
    "looks for itself": "checks itself",
    "who asks": "the caller",
    "is told that": "gets",
    "of its own accord": "by itself",
    "the very same": "the same",
    "tells the living from the dead": "a lock shows that its process is alive",
    "whole or not at all": "complete or not at all",
    "the other way round": "transposed, reversed",
    "believed, not checked": "assumed, not checked",
    "no rule knows": "of unknown use",
    "for ever": "always, permanently",
    "whoever": "name the actor",
    "at hand": "available",
    "just now": "now, or leave it out",
    "is told": "gets",
    "anew": "again",
    "without a farewell": "by a crash",
    "tells whether": "returns whether, checks whether",
    "what it says": "its contents",
    "any more": "no longer",
    "everybody": "every caller, all principals",
    "takes an administrator": "requires an administrator",
    "one a line": "one per line",
    "for the day when": "use this when",
}
PHRASE = re.compile("|".join(rf"\b{re.escape(phrase)}\b" for phrase in INSTEAD))


def test_phrases_that_read_like_a_translation_stay_out_of_the_source_and_the_decisions() -> None:
    files = [path for place in PLACES for path in (ROOT / place).rglob("*.py") if path not in EXCEPT]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; write: {INSTEAD[match[0]]}"
        for path in [*files, *(ROOT / "docs" / "decisions").glob("*.md"), *ROOT.glob("*.md")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in PHRASE.finditer(line)
    ]

    assert files
    assert found == []
