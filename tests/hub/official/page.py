"""The page of a run: how many tests passed, and why the others did not."""

from __future__ import annotations

from collections import Counter

from .classes import CLASSES
from .results import Run

_HEAD = """# Hugging Face's own tests

Made by `python -m tests.hub.official --suite CHECKOUT --write docs/hub-suite.md`, which runs the test suite of `huggingface_hub`
1.28.0, unmodified, against a real `adaptry serve`. The suite was written for huggingface.co, with its datasets, Spaces and
discussions; so each test that fails is listed in
[`failures.txt`](../tests/hub/official/failures.txt) with its class. The command fails for a failure that is not listed, and for a
listed test that passes. What clients do with a registry is in [Clients of the Hub protocol](hub-clients.md).

"""
_OUTCOMES = {
    "passed": "passed",
    "failed": "failed, each with a class below",
    "skipped": "skipped by the suite itself (a missing package, a real Space or Job)",
    "deselected": "left out: marked `production`, they read from huggingface.co",
}


def page(run: Run, table: dict[str, str]) -> str:
    count = run.count()
    text = _HEAD + "| tests | |\n| ---: | --- |\n"
    text += "".join(f"| {count[outcome]} | {meaning} |\n" for outcome, meaning in _OUTCOMES.items())
    return text + "\n" + classes(Counter(table[test] for test in run.failures() if test in table))


def classes(count: Counter[str]) -> str:
    """The table of classes with their numbers of failures."""
    text = "| failures | class | |\n| ---: | --- | --- |\n"
    return text + "".join(f"| {count[name]} | `{name}` | {meaning} |\n" for name, meaning in CLASSES.items())
