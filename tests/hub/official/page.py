"""The page of a run: the number of passed tests, and the reasons for the failures."""

from __future__ import annotations

from collections import Counter

from .classes import CLASSES
from .results import Run

_HEAD = """# Results of Hugging Face's own tests

This page shows how many tests of `huggingface_hub` 1.28.0 pass, unmodified, against a real `adaptry serve`,
and why the others fail. The suite was written for huggingface.co, with its datasets, Spaces and discussions,
so many failures are expected. Each failing test is listed in
[`failures.txt`](../tests/hub/official/failures.txt) with a class from the table below.
[Clients of the Hub protocol](hub-clients.md) shows what the clients can do with a registry.

To update this page, run `python -m tests.hub.official --suite CHECKOUT --write docs/hub-suite.md`. The
command fails if an unlisted test fails, or a listed one passes.

"""
_OUTCOMES = {
    "passed": "passed",
    "failed": "failed, each with a class below",
    "skipped": "skipped by the suite itself (a missing package, a real Space or Job)",
    "deselected": "not run: marked `production`, because they read from huggingface.co",
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
