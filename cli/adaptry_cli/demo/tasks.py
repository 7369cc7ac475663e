"""The demo's two tasks, both made of the standard library's docstrings.

`package`: which package does this docstring come from?  One answer of eight; judged by accuracy.
`summary`: what would this function's docstring say, given its signature?  Free text; judged by
perplexity (the lower, the less the model is surprised by what people really wrote).

Examples are ordered by the hash of their text and cut once, so a held-out example is never trained on
and the same Python version always makes the same task.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from adaptry.core.lazy_dataclass import dataclass
from adaptry_cli.demo import docstrings

Metric = Literal["accuracy", "perplexity"]

# In every Python from 3.11 on, with at least 150 docstrings each; the answer starts with another token for
# each, so the next token alone distinguishes them.
_PACKAGES = {
    "asyncio": "asyncio",
    "email": "email",
    "importlib": "importlib",
    "logging": "logging",
    "multiprocessing": "multiprocessing",
    "unittest": "unittest",
    "xml": "xml",
    "_pydecimal": "decimal",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its correct continuation (with a leading space)."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A task to learn, and its metric. `choices` are all possible completions, or empty for free text."""

    name: str
    title: str
    metric: Metric
    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    choices: tuple[str, ...] = ()

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value of this task's metric beats another."""
        return value > than if self.metric == "accuracy" else value < than


def package(per_class: int = 120, held_out: int = 8) -> DemoTask:
    """Eight classes with equally many examples; a text that two packages share is left out."""
    texts = {label: _texts(source) for source, label in _PACKAGES.items()}
    owners = Counter(text for of_label in texts.values() for text in of_label)
    train: list[Example] = []
    held: list[Example] = []
    for label, of_label in texts.items():
        only_here = [text for text in of_label if owners[text] == 1]
        mine = _shuffled(Example(f"Docstring: {text}\nPackage:", f" {label}") for text in only_here)
        held += mine[:held_out]
        train += mine[held_out : held_out + per_class]
    return DemoTask(
        name="package",
        title="Which package of the standard library does a docstring come from?",
        metric="accuracy",
        train=tuple(_shuffled(train)),
        held_out=tuple(held),
        choices=tuple(f" {label}" for label in _PACKAGES.values()),
    )


def summary(examples: int = 1000, held_out: int = 60) -> DemoTask:
    """Signatures and summaries of the functions of the library's single-file modules."""
    by_prompt: dict[str, Example] = {}  # methods of two classes may look the same
    for module, item in docstrings.module_docstrings():
        if item.signature and len(item.signature) <= 60 and 4 <= len(item.paragraph.split()) <= 16:
            prompt = f"Function: {module}.{item.name}{item.signature}\nSummary:"
            by_prompt[prompt] = Example(prompt, f" {item.paragraph}")
    by_completion = {one.completion: one for one in by_prompt.values()}
    mine = _shuffled(by_completion.values())
    return DemoTask(
        name="summary",
        title="What does a function's docstring say, given its signature?",
        metric="perplexity",
        train=tuple(mine[held_out : held_out + examples]),
        held_out=tuple(mine[:held_out]),
    )


def _texts(package: str) -> set[str]:
    """The beginnings (at most 24 words) of a package's docstrings; texts of fewer than 5 words are left
    out."""
    beginnings = (item.paragraph.split()[:24] for item in docstrings.package_docstrings(package))
    return {" ".join(words) for words in beginnings if len(words) >= 5}


def _shuffled(examples: Iterable[Example]) -> list[Example]:
    return sorted(examples, key=lambda one: hashlib.sha256(f"{one.prompt}{one.completion}".encode()).digest())
