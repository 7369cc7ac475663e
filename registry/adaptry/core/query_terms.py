"""The terms of a query, as values, and the parsing of one term."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, get_args

from adaptry.core.errors import InvalidQuery
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.query_times import is_span, period
from adaptry.core.states import State
from adaptry.core.suggestions import suggestion

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Pick = Literal["newest", "max", "min"]

TEXT_FIELDS = (
    *("name", "namespace", "base", "method", "module", "trait", "alias", "tag", "licence", "state", "by"),
    *("finding", "loaded"),
)
DIGEST_FIELDS = ("digest", "parent")
NUMBER_FIELDS = ("rank", "alpha", "size", "parameters", "version", "downloads", "findings")
DATE_FIELDS = ("created", "updated")
HAS_FIELDS = ("alias", "tag", "trait", "parent", "finding", "licence", "rank", "alpha", "metric", "eval")
FIELDS = (
    *(*TEXT_FIELDS, *DIGEST_FIELDS, *NUMBER_FIELDS, *DATE_FIELDS),
    *("metric", "eval", "has", "fits"),
)
_SPELLINGS = {"license": "licence"}

_COMPARISON = r"(<=|>=|!=|=|<|>|:)(.+)"
_METRIC = re.compile(rf"(?:(max|min):)?metric\.([A-Za-z0-9][A-Za-z0-9_./-]{{0,63}}?){_COMPARISON}")
_EVAL = re.compile(rf"eval\.([^<>=!:]+){_COMPARISON}")
_NUMBER = re.compile(rf"({'|'.join(NUMBER_FIELDS)}){_COMPARISON}")
_DATE = re.compile(rf"({'|'.join(DATE_FIELDS)}){_COMPARISON}")
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


@dataclass(frozen=True, slots=True)
class TextTerm:
    """A field that must equal a text, or begin with it."""

    field: str
    text: str
    is_prefix: bool = False

    def __str__(self) -> str:
        return f'{self.field}:"{self.text}{"*" * self.is_prefix}"'

    def is_one_of(self, values: Iterable[str]) -> bool:
        """Whether any of `values` matches."""
        text = self.text.lower()
        return any(value.startswith(text) if self.is_prefix else value == text for value in values)


@dataclass(frozen=True, slots=True)
class NumberTerm:
    """A numeric field compared with a number."""

    field: str
    operator: Operator
    value: float


@dataclass(frozen=True, slots=True)
class DateTerm:
    """A time that must be in a period: at or after `since`, and before `until`, if given; with
    `is_outside` it must not be in it.
    """

    field: str
    since: datetime | None = None
    until: datetime | None = None
    is_outside: bool = False


@dataclass(frozen=True, slots=True)
class MetricTerm:
    """A metric compared with a number. `pick` selects which of its values counts."""

    metric: str
    operator: Operator
    value: float
    pick: Pick = "newest"


@dataclass(frozen=True, slots=True)
class EvalName:
    """A metric of a task in evidence; `filter` is lm-eval's name for how an answer was extracted."""

    task: str
    metric: str
    filter: str | None = None

    def __str__(self) -> str:
        return f"eval.{self.task}.{self.metric}{f',{self.filter}' if self.filter else ''}"


@dataclass(frozen=True, slots=True)
class EvalTerm:
    """The newest evidence of a task's metric compared with a number."""

    name: EvalName
    operator: Operator
    value: float


@dataclass(frozen=True, slots=True)
class HasTerm:
    """Whether a version has any value of a field; `name` is that of a metric, or of a task (and metric)."""

    field: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class FitsTerm:
    """Whether an engine serves the version as it was trained."""

    runtime: str


Term = WordTerm | TextTerm | NumberTerm | DateTerm | MetricTerm | EvalTerm | HasTerm | FitsTerm


def parse_term(token: str, now: datetime) -> Term:
    """The term of a text without blanks outside quotation marks. Raises `InvalidQuery`."""
    body = token.replace('"', "")
    if match := _METRIC.fullmatch(body):
        pick: Pick = "max" if match[1] == "max" else "min" if match[1] == "min" else "newest"
        return MetricTerm(match[2], _operator(match[3]), _number(match[4], body), pick)
    if match := _EVAL.fullmatch(body):
        return EvalTerm(parse_eval_name(match[1]), _operator(match[2]), _number(match[3], body))
    if match := _NUMBER.fullmatch(body):
        return NumberTerm(match[1], _operator(match[2]), _number(match[3], body))
    if match := _DATE.fullmatch(body):
        return _date(match[1], _operator(match[2]), match[3], now)
    if match := _TEXT.fullmatch(body):
        return _text(_SPELLINGS.get(match[1], match[1]), match[2], token)
    if re.search(r"[<>=]", body):
        raise InvalidQuery(_cannot_compare(body, token))
    if body.startswith(("metric.", "eval.")):
        raise InvalidQuery(f"{token[:80]!r} is not a condition: compare it, as in {body}>=0.7, or has:{body}")
    return WordTerm(body)


def parse_eval_name(text: str) -> EvalName:
    """`gsm8k.exact_match`, `gsm8k.exact_match,strict-match`. Raises `InvalidQuery`."""
    named, _, filter = text.partition(",")
    task, _, metric = named.rpartition(".")
    if not task or not metric:
        raise InvalidQuery(
            f"{f'eval.{text}'[:80]!r} names no task and metric: write eval.TASK.METRIC, such as"
            " eval.gsm8k.exact_match, or eval.TASK.METRIC,FILTER"
        )
    return EvalName(task, metric, filter or None)


def is_relative(token: str) -> bool:
    """Whether a term's meaning depends on the present time."""
    match = _DATE.fullmatch(token.replace('"', ""))
    return match is not None and is_span(match[3])


def _text(field: str, text: str, token: str) -> Term:
    if field in DIGEST_FIELDS:
        return _digest(field, text)
    if field == "has":
        return _has(text, token)
    if field == "fits":
        if not text:
            raise InvalidQuery("fits: needs an engine, as in fits:vllm or fits:vllm@0.32,max_lora_rank=64")
        return FitsTerm(text)
    if field not in TEXT_FIELDS:
        raise InvalidQuery(_unknown_field(field, token))
    if not text.strip("*") and token not in ("state:*", "loaded:*"):
        raise InvalidQuery(f"{field}: needs a value, as in {field}:something")
    term = TextTerm(field, (text.lower() if field == "state" else text).rstrip("*"), text.endswith("*"))
    if field == "state" and not term.is_one_of(get_args(State)):
        raise InvalidQuery(unknown_value(term, get_args(State)))
    return term


def unknown_value(term: TextTerm, known: Iterable[str]) -> str:
    """The message for a value that is not one of the `known` ones."""
    values = tuple(known)
    near = suggestion(term.text, values) or f" (one of: {', '.join(sorted(values))})"
    return f"unknown {term.field} {term.text[:80]!r}{near}"


def _has(text: str, token: str) -> HasTerm:
    field, _, name = text.partition(".")
    field = _SPELLINGS.get(field, field)
    if field not in HAS_FIELDS or (name and field not in ("metric", "eval")) or text.endswith("."):
        shown = ", ".join(f"has:{one}" for one in HAS_FIELDS)
        near = suggestion(field, HAS_FIELDS, template="has:{}") or (
            f" (one of: {shown}, has:metric.NAME, has:eval.TASK, has:eval.TASK.METRIC)"
        )
        raise InvalidQuery(f"unknown field {text[:80]!r} in {token[:80]!r}{near}")
    return HasTerm(field, name)


def _unknown_field(field: str, token: str) -> str:
    near = suggestion(field, (*FIELDS, *_SPELLINGS)) or (
        f" (fields: {', '.join(FIELDS)}; metric.NAME and eval.TASK.METRIC are compared with numbers)"
    )
    return f"unknown field {field!r} in {token[:80]!r}{near}"


def _cannot_compare(body: str, token: str) -> str:
    """Why a term with `<`, `=` or `>` is invalid."""
    name, operator, value = re.split(r"([<>=!]+)", body, maxsplit=1)
    if _SPELLINGS.get(name, name) in (*TEXT_FIELDS, *DIGEST_FIELDS, "has", "fits"):
        return f"{name} in {token[:80]!r} is text, not a number: write {name}:{value[:40] or 'TEXT'}"
    if name in DATE_FIELDS:
        return f"{token[:80]!r} is not a comparison: write {name}{operator[:2]}2026-01-31"
    if name in NUMBER_FIELDS or name.startswith(("metric.", "eval.")):
        return f"{token[:80]!r} is not a comparison: write {name}{operator[:2]}NUMBER"
    compared = (*NUMBER_FIELDS, *DATE_FIELDS)
    near = suggestion(name, compared) or (
        f" (fields: {', '.join(compared)}); a metric is written metric.{name}, and one of a task"
        f" eval.TASK.{name}"
    )
    return f"unknown field {name!r} in {token[:80]!r}{near}"


def _digest(field: str, text: str) -> TextTerm:
    """The term with its complete digest. Raises `InvalidQuery` for a malformed one, which would find
    nothing.
    """
    match = _DIGEST.fullmatch(text.lower())
    if not match:
        raise InvalidQuery(
            f"not a digest: {text[:80]!r} in {field}: (write {field}:sha256:<64 hex digits>,"
            " or its first digits and *)"
        )
    return TextTerm(field, f"sha256:{match[1].rstrip('*')}", match[1].endswith("*"))


def _date(field: str, operator: Operator, text: str, now: datetime) -> DateTerm:
    """A comparison with a day is one with its beginning or its end, so that `<=` includes the day."""
    start, end = period(text, now)
    match operator:
        case ">=":
            return DateTerm(field, since=start)
        case ">":
            return DateTerm(field, since=end)
        case "<":
            return DateTerm(field, until=start)
        case "<=":
            return DateTerm(field, until=end)
    if start == end:
        raise InvalidQuery(
            f"{text[:40]!r} is a point in time, not a day: compare {field} with <, <=, > or >="
        )
    return DateTerm(field, start, end, is_outside=operator == "!=")


def _operator(text: str) -> Operator:
    operators: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "!=": "!="}
    return operators.get(text, "=")


def _number(text: str, where: str) -> float:
    if not text.strip("<>=!"):
        raise InvalidQuery(f"{where[:80]!r} lacks the number to compare with, as in rank<=16")
    match = re.fullmatch(r"([-+0-9.eE]+)\s*([A-Za-z]*)", text)
    try:
        value = float(match[1]) * (_SUFFIXES[match[2].lower()] if match[2] else 1) if match else math.nan
    except (ValueError, KeyError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidQuery(f"not a number: {text[:40]!r} in {where[:80]!r}")
    return value
