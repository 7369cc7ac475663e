"""Formatting of many names in a finding: counted, shortened, with layers folded into one name.

On a wrong base, three hundred modules are wrong in the same way; a reader needs to see that once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adaptry.core.lazy_pattern import lazy_pattern

_NUMBER = lazy_pattern(r"(?<=\.)\d+(?=\.)")


def verb_form(number: int, one: str, many: str) -> str:
    """`was` for 1, `were` for others."""
    return one if number == 1 else many


def format_count(number: int, noun: str) -> str:
    """`1 module`, `30 modules`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def shorten_names(names: Sequence[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def fold_layer_numbers(names: Iterable[str]) -> list[str]:
    """The distinct names with N instead of layer numbers: `model.layers.N.self_attn.q_proj`."""
    return list(dict.fromkeys(_NUMBER.sub("N", name) for name in names))


def format_layers(numbers: Iterable[int]) -> str:
    """`layer 3`, `layers 4 and 5`, `layers 0 to 3 and 7`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    parts = [part for first, last in spans for part in _range_parts(first, last)]
    *others, final = parts
    text = f"{', '.join(others)} and {final}" if others else final
    return f"layer {text}" if text.isdigit() else f"layers {text}"


def _range_parts(first: int, last: int) -> list[str]:
    if last - first > 1:
        return [f"{first} to {last}"]
    return [f"{first}"] if first == last else [f"{first}", f"{last}"]
