"""The words, numbers, texts and signs of a condition, each with its column."""

from __future__ import annotations

import re

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\\n]|\\["'\\])*"|'(?:[^'\\\n]|\\["'\\])*')
      | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>&&|\|\||[=!<>]=|[-+*/%<>!=().,?:\[\]])
    )""",
    re.VERBOSE | re.ASCII,
)
_SUGGESTIONS = {
    "\u2265": "write >=",
    "\u2264": "write <=",
    "\u2260": "write !=",
    "\u201c": 'write straight quotation marks: "',
    "\u201d": 'write straight quotation marks: "',
    "\u2018": "write straight quotation marks: '",
    "\u2019": "write straight quotation marks: '",
    "&": "write &&",
    "|": "write ||",
    ";": "join conditions by &&, or write them on separate lines",
    "#": "conditions have no comments; use the policy's `description`",
}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is text, number, word or sign; `column` counts from 1."""

    kind: str
    text: str
    column: int


def tokens_of(source: str) -> list[Token]:
    """Splits a condition into tokens. Raises `Invalid` with the column of the text that cannot be read."""
    found: list[Token] = []
    position, end = 0, len(source.rstrip())
    while position < end:
        match = _TOKEN.match(source, position)
        if match is None:
            rest = source[position:end].lstrip()
            raise Invalid(f"column {end - len(rest) + 1}: {_problem(rest)}")
        kind = match.lastgroup or ""
        found.append(Token(kind, match[kind], match.start(kind) + 1))
        position = match.end()
    return found


def _problem(rest: str) -> str:
    if rest[0] in "\"'":
        closing = rest.find(rest[0], 1)
        if closing < 0:
            return f"the text has no closing quotation mark: {rest[:20]!a}"
        return f"a text may contain \\\\, \\\" and \\', but no other backslash: {rest[: closing + 1][:20]!a}"
    instead = _SUGGESTIONS.get(rest[0])
    if instead is None and rest[0].isdigit() and rest[0].isascii():
        instead = "write a number such as 0.75 or 1e-3"
    return f"cannot be read: {rest[:20]!a}" + (f"; {instead}" if instead else "")
