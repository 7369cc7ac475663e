"""JSON as untrusted bytes: one meaning or an error.

The standard library takes the last of two equal keys, accepts NaN, and fails on deep nesting or on a number
with 100,000 digits. Here each of these raises `Invalid`, and the limits are explicit.

The time is linear in the size. Values are counted before the first is allocated.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

_MAX_DIGITS = 40
# A possessive repeat with an optional end: an unclosed string is one token up to the end of the text. With a
# plain repeat, each of its escaped quotation marks would start another attempt (n²).
_TOKEN = lazy_pattern(r'[\[\]{},]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_LONG_NUMBER = lazy_pattern(rf"\d{{{_MAX_DIGITS}}}\d")
_SURROGATE = lazy_pattern(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Limits on the size of a document: bytes, levels of nesting, values of any kind."""

    size: int
    depth: int = 16
    nodes: int = 10_000


def loads(data: bytes, limits: JsonLimits, label: str, *, allow_nan: bool = False) -> Any:
    """The document in `data`. (`Any`: JSON has no type until a model gives it one.)

    With `allow_nan`, NaN and Infinity become None; programs that train and evaluate write them.

    Raises `Invalid`, naming `label`, if the document exceeds a limit, is not UTF-8, or has a byte-order mark,
    duplicate keys, NaN or Infinity, overlong numbers, lone surrogates or trailing bytes.
    """
    if len(data) > limits.size:
        raise Invalid(f"{label} is {len(data):,} bytes; at most {limits.size:,} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{label} is not UTF-8 text (byte {error.start})") from None
    _check_structure(text, limits, label)
    try:
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, label),
            parse_constant=lambda name: None if allow_nan else _refuse_constant(name, label),
            # A call for each of a header's thousand numbers would double the time.
            parse_int=(lambda digits: _integer(digits, label)) if _LONG_NUMBER.search(text) else None,
            parse_float=lambda digits: _real(digits, label),
        )
    except json.JSONDecodeError as error:
        raise Invalid(
            f"{label} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None


def canonical(document: Any) -> bytes:
    """`document` in its only canonical form: sorted keys, no spaces, UTF-8, finite numbers.

    (`Any`: what `json.dumps` takes.) Raises `ValueError` for NaN and Infinity.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def _check_structure(text: str, limits: JsonLimits, what: str) -> None:
    """Counts brackets and commas outside strings, to limit nesting and values before a parser runs.

    A loop in Python and not one long call, so that other threads can run.
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
                    return  # not JSON; the parser reports it
            case _:
                if has_surrogates:
                    _check_string(token[0], what)
        if values > limits.nodes:
            raise Invalid(f"{what} has more than {limits.nodes:,} values")


def _check_string(token: str, what: str) -> None:
    """Refuses lone surrogates. Only an escape can contain one, since the text was decoded as UTF-8."""
    try:
        json.loads(token).encode()
    except json.JSONDecodeError:
        return  # the parser reports where
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} has a lone surrogate (half a character) in {error.object[:40]!a}") from None


def _unique(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Invalid(f"{what} has the key {key[:80]!r} twice; remove one")
        found[key] = value
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
        raise Invalid(f"{what} contains a number that is too large: {digits[:40]}")
    return value
