"""JSON as untrusted bytes: one meaning or an error.

The standard library takes the last of two equal keys, accepts NaN, and dies of deep nesting or of a
number with 100,000 digits. Here each of those is `Invalid`, within stated limits.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from adaptry.errors import Invalid

_MAX_DIGITS = 40
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a document may be: bytes, levels of nesting, values of any kind."""

    size: int
    depth: int = 16
    nodes: int = 10_000


def loads(data: bytes, limits: Limits, what: str) -> Any:
    """The document in `data`. (`Any`: JSON has no type until a model gives it one.)

    Raises `Invalid`, naming `what`, for: over a limit, not UTF-8, a byte-order mark, duplicate keys,
    NaN or Infinity, numbers of absurd length, lone surrogates, trailing bytes.
    """
    if len(data) > limits.size:
        raise Invalid(f"{what} is {len(data):,} bytes; at most {limits.size:,} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{what} is not UTF-8 text (byte {error.start})") from None
    _check_depth(text, limits.depth, what)
    nodes = 0

    def count(number: int) -> None:
        nonlocal nodes
        nodes += number
        if nodes > limits.nodes:
            raise Invalid(f"{what} has more than {limits.nodes:,} values")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        count(len(pairs))
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise Invalid(f"{what} has the key {twice[:80]!r} twice; which one is meant?")
        for key, value in pairs:
            if isinstance(value, list):
                count(len(value))
            if not key.isascii():
                _check_text(key, what)
            if isinstance(value, str) and not value.isascii():
                _check_text(value, what)
        return found

    try:
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=lambda name: _refuse_constant(name, what),
            parse_int=lambda digits: _integer(digits, what),
            parse_float=lambda digits: _real(digits, what),
        )
    except json.JSONDecodeError as error:
        raise Invalid(
            f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None


def canonical(document: Any) -> bytes:
    """The one way to write `document`: sorted keys, no spaces, UTF-8, finite numbers.

    (`Any`: whatever `json.dumps` takes.) Raises `ValueError` for NaN and Infinity.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def _check_depth(text: str, limit: int, what: str) -> None:
    """Counts brackets outside strings, so that nesting is refused before a recursive parser sees it."""
    depth = 0
    for token in _BRACKET_OR_STRING.finditer(text):
        match token[0][0]:
            case "[" | "{":
                depth += 1
                if depth > limit:
                    raise Invalid(f"{what} is nested deeper than {limit} levels")
            case "]" | "}":
                depth -= 1


def _check_text(text: str, what: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise Invalid(f"{what} has half a character (a lone surrogate) in {text[:40]!a}")


def _refuse_constant(name: str, what: str) -> NoReturn:
    raise Invalid(f"{what} contains {name}, which is not a number in JSON")


def _integer(digits: str, what: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise Invalid(f"{what} contains a number of {len(digits):,} digits")
    return int(digits)


def _real(digits: str, what: str) -> float:
    value = float(digits) if len(digits) <= 400 else float("inf")
    if value in (float("inf"), float("-inf")):
        raise Invalid(f"{what} contains a number too large to be one: {digits[:40]}")
    return value
