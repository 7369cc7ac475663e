"""The search language: words and `field:value` terms, combined with `OR`, parentheses and `-`.

    base:org/model method:lora rank<=16 (metric.accuracy>=0.9 OR eval.gsm8k.exact_match>=0.7) -tag:draft

Adjacent terms must all hold. `OR` binds more loosely, and `-` (or `NOT`) more tightly, so that `a b OR c`
means `(a b) OR c`. `AND` may be written between terms. If a metric has several values, the newest counts; the
prefixes `max:` and `min:` select the largest and the smallest. Parsing returns a value for `catalog.search`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

from adaptry.core.errors import InvalidQuery
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.query_terms import (
    DATE_FIELDS,
    DIGEST_FIELDS,
    HAS_FIELDS,
    NUMBER_FIELDS,
    TEXT_FIELDS,
    FitsTerm,
    Term,
    TextTerm,
    is_relative,
    parse_term,
)

GRAMMAR = (
    "words to find in names, descriptions and tags; "
    + ", ".join(f"{field}:TEXT" for field in TEXT_FIELDS)
    + " (text may end in *; without a state: those that are active or deprecated, with state:* all); "
    + " and ".join(f"{field}:DIGEST" for field in DIGEST_FIELDS)
    + " (a revision's, or that of one it was made from: sha256:…, or its beginning and *); "
    + ", ".join(NUMBER_FIELDS)
    + ", metric.NAME (or max:metric.NAME, min:metric.NAME) and eval.TASK.METRIC with = != < <= > >= and a"
    " number; "
    + " and ".join(DATE_FIELDS)
    + " with the same and a date (2026-01-31), or how long ago (7d); "
    + ", ".join(f"has:{field}" for field in HAS_FIELDS)
    + " (has:metric.NAME, has:eval.TASK.METRIC); fits:ENGINE; "
    "OR and parentheses combine terms: adjacent terms must all hold, and bind more tightly than OR; "
    "a - before a term or a group excludes what it finds"
)
MAX_LENGTH = 1024
MAX_TERMS = 32
MAX_DEPTH = 8
_CACHE_SIZE = 64  # queries

_TOKEN = re.compile(r'[()]|-(?=\()|-?(?:[^\s"()]|"[^"]*")+')
_OPERATORS = ("OR", "AND", "NOT")
_QUOTE = "put text that contains one in quotation marks"
_CLOSED = f"a closing parenthesis has no opening one; {_QUOTE}"


@dataclass(frozen=True, slots=True)
class Not:
    """All versions that do not match `part`."""

    part: Node


@dataclass(frozen=True, slots=True)
class And:
    """The versions that match all parts; without parts, all versions."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """The versions that match any part."""

    parts: tuple[Node, ...]


Node = Term | Not | And | Or


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query: the conditions that must all hold, and how many terms they have. `is_relative` is
    True if the query depends on the current time, `reads_files` if its result depends on stored files and not
    only on rows of the catalog.
    """

    parts: tuple[Node, ...] = ()
    terms: int = 0
    is_relative: bool = False
    reads_files: bool = False

    @property
    def names_states(self) -> bool:
        """Whether the query has a term on the state, so that no state is left out by default."""
        return any(
            isinstance(term, TextTerm) and term.field == "state" and not is_negated
            for term, is_negated in _terms(And(self.parts))
        )

    def text_terms(self) -> Iterator[TextTerm]:
        """The terms that compare a field with a text."""
        return (term for term, _ in _terms(And(self.parts)) if isinstance(term, TextTerm))


def parse(text: str, now: datetime | None = None) -> Query:
    """The conditions of a query; empty text matches all. Raises `InvalidQuery`, which names the wrong term.

    `now` is the moment from which spans such as `7d` are counted.
    """
    return _parsed_once(text) or _parsed(text, now or datetime.now(UTC))


@lru_cache(maxsize=_CACHE_SIZE)
def _parsed_once(text: str) -> Query | None:
    """The parsed query, cached since a request parses it several times. None if it depends on the time."""
    found = _parsed(text, datetime.now(UTC))
    return None if found.is_relative else found


def _parsed(text: str, now: datetime) -> Query:
    if len(text) > MAX_LENGTH:
        raise InvalidQuery(f"a query may have at most {MAX_LENGTH} characters")
    if text.count('"') % 2:
        raise InvalidQuery(f"a quotation mark is not closed in {text!r}")
    parser = _Parser(_TOKEN.findall(text), now)
    root = parser.parse()
    parts = root.parts if isinstance(root, And) else (root,)
    if parser.reads_files:
        _check_fits(parts)
    return Query(parts, parser.terms, parser.is_relative, parser.reads_files)


def also(query: str, term: str) -> str:
    """The query for versions that match both `query` and `term`."""
    if not query.strip():
        return term
    return f"({query}) {term}" if "OR" in query else f"{query} {term}"


class _Parser:
    """A recursive descent over the tokens."""

    def __init__(self, tokens: list[str], now: datetime) -> None:
        self._tokens, self._at, self._now, self._depth = tokens, 0, now, 0
        self.terms, self.is_relative, self.reads_files = 0, False, False

    def parse(self) -> Node:
        if not self._tokens:
            return And(())
        found = self._alternatives()
        if self._next() is not None:
            raise InvalidQuery(_CLOSED)
        return found

    def _alternatives(self) -> Node:
        parts = [self._conjunction()]
        while self._next() == "OR":
            self._at += 1
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _conjunction(self) -> Node:
        parts = [self._factor()]
        while (token := self._next()) is not None and token not in (")", "OR"):
            if token == "AND":
                self._at += 1
            parts.append(self._factor())
        if len(parts) == 1:
            return parts[0]
        return And(tuple(one for part in parts for one in (part.parts if isinstance(part, And) else (part,))))

    def _factor(self) -> Node:
        token = self._next()
        if token is None or token in (")", "OR", "AND"):
            raise InvalidQuery(self._missing(token))
        self._at += 1
        if token == "(":
            return self._group()
        if token in ("-", "NOT"):
            return Not(self._nested())
        if token.startswith("-") and len(token) > 1:
            return Not(self._term(token[1:]))
        return self._term(token)

    def _nested(self) -> Node:
        self._deeper()
        found = self._factor()
        self._depth -= 1
        return found

    def _group(self) -> Node:
        self._deeper()
        found = self._alternatives()
        self._depth -= 1
        if self._next() != ")":
            raise InvalidQuery(f"a parenthesis is not closed; {_QUOTE}")
        self._at += 1
        return found

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidQuery(f"a query may have at most {MAX_DEPTH} nested parentheses")

    def _term(self, token: str) -> Term:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise InvalidQuery(f"a query may have at most {MAX_TERMS} terms")
        self.is_relative = self.is_relative or is_relative(token)
        term = parse_term(token, self._now)
        self.reads_files = self.reads_files or isinstance(term, FitsTerm)
        return term

    def _missing(self, token: str | None) -> str:
        before = self._tokens[self._at - 1] if self._at else ""
        if before == "(" and token == ")":
            return f"parentheses are empty; {_QUOTE}"
        if before == "-":
            return "a - needs a term after it, as in -tag:draft"
        word = token if token in _OPERATORS else before
        if word in _OPERATORS:
            return f'{word} needs a term on each side; quote it to search for the word: "{word}"'
        return f"a parenthesis is not closed; {_QUOTE}" if token is None else _CLOSED

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None


def _terms(node: Node, is_negated: bool = False) -> Iterator[tuple[Term, bool]]:
    """All terms of a node, and whether each is excluded."""
    match node:
        case Not(part):
            yield from _terms(part, not is_negated)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _terms(part, is_negated)
        case _:
            yield node, is_negated


def _check_fits(parts: tuple[Node, ...]) -> None:
    """Checks the `fits:` terms. Their verdicts are computed version by version, after everything else has
    narrowed the search.
    """
    for part in parts:
        plain = part.part if isinstance(part, Not) else part
        if not isinstance(plain, FitsTerm) and any(isinstance(term, FitsTerm) for term, _ in _terms(part)):
            raise InvalidQuery(
                "fits: is computed for one version after another, so it cannot be inside OR or a group; move"
                " it out of the parentheses, or search once for each engine"
            )
