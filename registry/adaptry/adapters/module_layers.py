"""A module's place in a model: its layer, and its kind within the layer. For tables with a row per layer."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(.*?\.\d+)\.(.+)")
NO_LAYER = "(no layer)"


def layer_and_kind(path: str) -> tuple[str, str]:
    """A module's layer (its path up to the first number) and its kind (the rest)."""
    match = _LAYER.fullmatch(path)
    return (match[1], match[2]) if match else (NO_LAYER, path)


def in_model_order(names: Iterable[str]) -> list[str]:
    """Layers or kinds by name, with numbers in their order."""
    return sorted(set(names), key=_by_number)


def _by_number(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in text.split(".")]
