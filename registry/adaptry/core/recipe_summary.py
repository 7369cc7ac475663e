"""A recipe in one line, whichever operation wrote it: `combine ties: 0.5 + 0.3, density 0.2, rank 16`.

Each operation defines the fields of its recipe, and anyone may push any recipe. So the summary uses only
fields that can be read without knowing the operation, and is never longer than a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.display import format_count
from adaptry.core.errors import Invalid

_MAX_LENGTH = 160
_FIRST_FIELDS = ("operation", "method", "inputs")
_DEFAULTS = {"seed": 0, "dtype": "F32"}
"""Fields and values that a summary leaves out."""


def summarise_recipe(recipe: Mapping[str, Any] | None) -> str:
    """The operation, method and weights, then other words and numbers; empty without a recipe. (`Any`:
    JSON.)
    """
    if not recipe:
        return ""
    head = " ".join(str(recipe[key]) for key in ("operation", "method") if isinstance(recipe.get(key), str))
    facts = [text for text in (_weights(recipe), *_words(recipe)) if text]
    line = f"{head or 'a recipe'}: {', '.join(facts)}" if facts else head or "a recipe"
    return line if len(line) <= _MAX_LENGTH else f"{line[: _MAX_LENGTH - 1]}…"


def unregistered_inputs(recipe: Mapping[str, Any] | None) -> tuple[Digest, ...]:
    """Digests of the weights of inputs that were folders and not revisions of a registry. (`Any`: JSON.)"""
    inputs = (recipe or {}).get("inputs")
    entries = [entry for entry in inputs if isinstance(entry, dict)] if isinstance(inputs, list) else []
    return tuple(dict.fromkeys(_digests(entry.get("weights") for entry in entries)))


def _weights(recipe: Mapping[str, Any]) -> str:
    inputs = recipe.get("inputs")
    if not isinstance(inputs, list):
        return ""
    given = [entry.get("weight") for entry in inputs if isinstance(entry, dict)]
    return " + ".join(f"{weight:g}" for weight in given if _is_number(weight))


def _words(recipe: Mapping[str, Any]) -> Iterator[str]:
    for key, value in recipe.items():
        name = key.replace("_", " ")
        if key in _FIRST_FIELDS or value is None or value is False or _DEFAULTS.get(key) == value:
            continue
        if value is True:
            yield name
        elif _is_number(value):
            yield f"{name} {value:g}"
        elif isinstance(value, str):
            yield f"{name} {value}"
        elif key == "parameters" and isinstance(value, dict):
            yield from _words(value)
        elif key == "modules" and isinstance(value, list):
            yield f"{format_count(len(value), 'module pattern')} with own settings"


def _digests(texts: Iterator[object]) -> Iterator[Digest]:
    for text in texts:
        if isinstance(text, str):
            try:
                yield Digest.parse(text)
            except Invalid:  # another tool's operation, in which `weights` means something else
                continue


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
