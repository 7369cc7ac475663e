"""The search language: words and `field:value` terms, all of which must hold.

    base:org/model method:lora rank<=16 module:q_proj metric.accuracy>=0.9 alias:prod tone

If a metric has several values, the newest counts; the prefixes `max:` and `min:` select the largest and the
smallest. A `-` before a term negates it. Parsing returns a value, which `catalog.search` turns into SQL.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from adaptry.core.errors import InvalidQuery
from adaptry.core.suggestions import suggestion

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Pick = Literal["newest", "max", "min"]

TEXT_FIELDS = ("name", "namespace", "base", "method", "module", "trait", "alias", "tag", "state", "by")
DIGEST_FIELDS = ("digest", "parent")
NUMBER_FIELDS = ("rank", "size", "parameters", "version", "downloads")
GRAMMAR = (
    "words to find in names, descriptions and tags; "
    + ", ".join(f"{field}:TEXT" for field in TEXT_FIELDS)
    + " (text may end in *; without a state: those that are active or deprecated, with state:* all); "
    + " and ".join(f"{field}:DIGEST" for field in DIGEST_FIELDS)
    + " (a revision's, or that of one it was made from: sha256:…, or its beginning and *); "
    + ", ".join(NUMBER_FIELDS)
    + " and metric.NAME (or max:metric.NAME, min:metric.NAME) with = != < <= > >= and a number; "
    "a - before a term excludes"
)
MAX_LENGTH = 1024
MAX_TERMS = 32

_TERM = re.compile(r'-?(?:[^\s"]|"[^"]*")+')
_METRIC = re.compile(r"(?:(max|min):)?metric\.([A-Za-z0-9][A-Za-z0-9_./-]{0,63}?)(<=|>=|!=|=|<|>|:)(.+)")
_NUMBER = re.compile(rf"({'|'.join(NUMBER_FIELDS)})(<=|>=|!=|=|<|>|:)(.+)")
_TEXT = re.compile(r"([A-Za-z_]+):(.*)", re.DOTALL)
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64}|[0-9a-f]{4,63}\*)")
_SUFFIXES = {
    "k": 1e3,
    "m": 1e6,
    "g": 1e9,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


@dataclass(frozen=True, slots=True)
class WordTerm:
    """A word in the adapter's name, its description or a tag."""

    text: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TextTerm:
    """A field that must equal a text, or begin with it."""

    field: str
    text: str
    is_prefix: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class NumberTerm:
    """A numeric field compared with a number."""

    field: str
    operator: Operator
    value: float
    negated: bool = False


@dataclass(frozen=True, slots=True)
class MetricTerm:
    """A metric compared with a number. `pick` says which of its values counts."""

    metric: str
    operator: Operator
    value: float
    pick: Pick = "newest"
    negated: bool = False


Term = WordTerm | TextTerm | NumberTerm | MetricTerm


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a query; empty text matches all. Raises `InvalidQuery`, which names the wrong term."""
    if len(text) > MAX_LENGTH:
        raise InvalidQuery(f"a query is at most {MAX_LENGTH} characters")
    if text.count('"') % 2:
        raise InvalidQuery(f"a quotation mark is not closed in {text!r}")
    terms = tuple(_term(token) for token in _TERM.findall(text))
    if len(terms) > MAX_TERMS:
        raise InvalidQuery(f"a query has at most {MAX_TERMS} terms")
    return terms


def _term(token: str) -> Term:
    negated = token.startswith("-") and len(token) > 1
    body = (token[1:] if negated else token).replace('"', "")
    if match := _METRIC.fullmatch(body):
        pick: Pick = "max" if match[1] == "max" else "min" if match[1] == "min" else "newest"
        return MetricTerm(match[2], _operator(match[3]), _number(match[4], body), pick, negated)
    if match := _NUMBER.fullmatch(body):
        return NumberTerm(match[1], _operator(match[2]), _number(match[3], body), negated)
    if match := _TEXT.fullmatch(body):
        field, text = match[1], match[2]
        if field in DIGEST_FIELDS:
            return _digest(field, text, negated)
        if field not in TEXT_FIELDS:
            raise InvalidQuery(_unknown_field(field, token))
        if not text.strip("*") and token != "state:*":
            raise InvalidQuery(f"{field}: needs a text, as in {field}:something")
        return TextTerm(field, text.rstrip("*"), text.endswith("*"), negated)
    if re.search(r"[<>=]", body):
        raise InvalidQuery(_cannot_compare(body, token))
    return WordTerm(body, negated)


def _unknown_field(field: str, token: str) -> str:
    known = (*TEXT_FIELDS, *DIGEST_FIELDS, *NUMBER_FIELDS, "metric")
    near = suggestion(field, known) or f" (fields: {', '.join(known[:-1])}, metric.NAME)"
    return f"unknown field {field!r} in {token[:80]!r}{near}"


def _cannot_compare(body: str, token: str) -> str:
    """Why a term with `<`, `=` or `>` is none."""
    name, operator, value = re.split(r"([<>=!]+)", body, maxsplit=1)
    if name in (*TEXT_FIELDS, *DIGEST_FIELDS):
        return f"{name} in {token[:80]!r} is a text: write {name}:{value[:40] or 'TEXT'}"
    if name in NUMBER_FIELDS or name.startswith("metric."):
        return f"{token[:80]!r} is not a comparison: write {name}{operator[:2]}NUMBER"
    near = suggestion(name, NUMBER_FIELDS) or f" (fields: {', '.join(NUMBER_FIELDS)})"
    return f"{name!r} in {token[:80]!r} is not a number{near}; a metric is written metric.{name}"


def _digest(field: str, text: str, negated: bool) -> TextTerm:
    """The term with its complete digest. Raises `InvalidQuery` for a malformed one, which would find
    nothing.
    """
    match = _DIGEST.fullmatch(text.lower())
    if not match:
        raise InvalidQuery(
            f"not a digest: {text[:80]!r} in {field}: (write {field}:sha256:<64 hex digits>,"
            " or its first digits and *)"
        )
    return TextTerm(field, f"sha256:{match[1].rstrip('*')}", match[1].endswith("*"), negated)


def _operator(text: str) -> Operator:
    operators: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "!=": "!="}
    return operators.get(text, "=")


def _number(text: str, where: str) -> float:
    match = re.fullmatch(r"([-+0-9.eE]+)\s*([A-Za-z]*)", text)
    try:
        value = float(match[1]) * (_SUFFIXES[match[2].lower()] if match[2] else 1) if match else math.nan
    except (ValueError, KeyError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidQuery(f"not a number: {text[:40]!r} in {where[:80]!r}")
    return value
