"""Compares a run of Hugging Face's suite with the committed table of failures.

A failure that the table does not list, and a listed one that now passes, both require a person: the first
must be fixed or classified, the second removed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .classes import CLASSES

TABLE = Path(__file__).with_name("failures.txt")


@dataclass(frozen=True, slots=True)
class Run:
    """Outcomes by test: `passed`, `failed`, `skipped` or `deselected`; and the last lines of output of those
    that failed.
    """

    outcomes: dict[str, str]
    texts: dict[str, str]

    @classmethod
    def read(cls, file: Path) -> Run:
        """The file that the plugin wrote. A test that failed in one of its phases failed."""
        outcomes: dict[str, str] = {}
        texts: dict[str, str] = {}
        for line in file.read_text().splitlines():
            said = json.loads(line)
            if outcomes.get(said["test"]) != "failed":
                outcomes[said["test"]] = said["outcome"]
            if said["outcome"] == "failed":
                texts[said["test"]] = texts.get(said["test"], "") + said["text"]
        return cls(outcomes, texts)

    def count(self) -> Counter[str]:
        return Counter(self.outcomes.values())

    def failures(self) -> list[str]:
        return sorted(test for test, outcome in self.outcomes.items() if outcome == "failed")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tests that need a person: failures that are not listed, and listed tests that passed."""

    unlisted: list[str]
    recovered: list[str]


def read_table(file: Path = TABLE) -> dict[str, str]:
    """The class of each listed test. Raises `ValueError` for a line with an unknown class, and for a test
    listed twice.
    """
    found: dict[str, str] = {}
    for line in file.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, test = line.partition(" ")
        if name not in CLASSES:
            raise ValueError(f"unknown class {name!r} (one of: {', '.join(CLASSES)})")
        if test in found:
            raise ValueError(f"listed twice: {test}")
        found[test] = name
    return found


def compare(run: Run, table: dict[str, str]) -> Comparison:
    """Ignores tests that did not run, so that a part of the suite can be run."""
    return Comparison(
        unlisted=[test for test in run.failures() if test not in table],
        recovered=sorted(test for test in table if run.outcomes.get(test) == "passed"),
    )
