"""Docstrings, comments, messages and names of tests avoid phrases that read like a translation."""

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
    "tests",
)
EXCEPT = {
    Path(__file__),
    ROOT / "cli/adaptry_cli/times.py",
    ROOT / "tests/cli/test_streams.py",
}
"""The list of phrases; and the files in which times are shown as `just now`."""
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
    "anybody": "anyone, every caller",
    "at most so many": "at most `limit`",
    "that which": "name the thing",
    "goes on with": "continues with",
    "gone on with": "continued",
    "is no part of": "is not part of",
    "are no part of": "are not part of",
    "nobody else": "no one else, no other caller",
    "means nothing": "does not matter, is ignored",
    "asked of": "requested from",
    "data set": "dataset",
    "data sets": "datasets",
    "file of results": "results file",
    "files of results": "results files",
    "file of samples": "samples file",
    "files of samples": "samples files",
    "differ only in capitals": "differ only in case",
    "differs only in capitals": "differs only in case",
    "also if": "even if, including if",
    "another base than": "a different base than, a base other than",
    "another model than": "a different model than",
    "other bytes than": "different bytes than",
    "other files than": "different files than",
    "other values than": "different values than, values other than",
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


NAMES = re.compile(
    r"test_(what|who|whoever|whose|whichever|where|nor|nobody|none|they|it|so)_"
    r"|_(nobody|somebody|anybody|everybody|whoever|anew|said|told|heard|meanwhile|aloud|amiss|for_ever)(_|$)"
    r"|_(way_out|other_way_round|comes?_along|says?_so|tells_of)(_|$)"
)
"""A name begins with the thing that it is about, and describes what that thing does. Free relatives
(`what_is_pulled_is_…`) and pronouns (`nor_…`) need the test's body to be understood.
"""


def test_names_of_tests_begin_with_the_thing_that_they_are_about() -> None:
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "registry/adaptry/testing").rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in re.findall(r"def (test_\w+)", path.read_text())
        if NAMES.search(name)
    ]

    assert files
    assert found == [], "begin a name with its subject: `a_withdrawn_version_is_refused`"
