"""JSON as untrusted bytes: one meaning or an error.

The standard library takes the last of two equal keys, accepts NaN, and dies of deep nesting or of a
number with 100,000 digits. Here each of those is `Invalid`, within stated limits.

The time is linear in the size, and the values are counted before the first of them is allocated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from adaptry.core.errors import Invalid

_MAX_DIGITS = 40
# Possessive, and with an optional end: a string that is not closed is one token to the end of the text. With
# a plain repeat each of its escaped quotation marks would begin another attempt (n²).
_TOKEN = re.compile(r'[\[\]{},]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How large a document may be: bytes, levels of nesting, values of any kind."""

    size: int
    depth: int = 16
    nodes: int = 10_000


def loads(data: bytes, limits: JsonLimits, what: str) -> Any:
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
    _check_structure(text, limits, what)
    try:
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, what),
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


def _check_structure(text: str, limits: JsonLimits, what: str) -> None:
    """Counts brackets and commas outside strings, to bound nesting and values before a parser runs.

    A loop in Python rather than one long call, so that other threads are served meanwhile.
    """
    depth, values = 0, 1
    has_surrogates = _SURROGATE.search(text) is not None
    for token in _TOKEN.finditer(text):
        match token[0][0]:
            case ",":
                values += 1
            case "[" | "{":
                depth += 1
                values += 1
                if depth > limits.depth:
                    raise Invalid(f"{what} is nested deeper than {limits.depth} levels")
            case "]" | "}":
                depth -= 1
                if depth < 0:
                    return  # no JSON from here on, as the parser will say
            case _:
                if has_surrogates:
                    _check_string(token[0], what)
        if values > limits.nodes:
            raise Invalid(f"{what} has more than {limits.nodes:,} values")


def _check_string(token: str, what: str) -> None:
    """Refuses half a character. Only an escape can write one: the text was decoded as UTF-8."""
    try:
        json.loads(token).encode()
    except json.JSONDecodeError:
        return  # the parser will say where
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} has half a character (a lone surrogate) in {error.object[:40]!a}") from None


def _unique(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Invalid(f"{what} has the key {twice[:80]!r} twice; which one is meant?")
    return found


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
