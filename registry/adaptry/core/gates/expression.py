"""Conditions: CEL expressions, whose function calls are read before anything is evaluated.

Arguments are literals, so all evidence that a condition uses is known in advance. CEL itself never calls a
function: it gets an expression in which each call is a name (`call0`), and the values of these names. So a
function cannot raise inside an expression, where `||` would hide it, and there is no way to loop.

Arguments may be named, as in `vs="prod"`, which CEL has no syntax for.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from adaptry.core.errors import Invalid
from adaptry.core.gates import MAX_CONDITION
from adaptry.core.gates.functions import FUNCTIONS, GateFunction, Parameter, Scalar, written
from adaptry.core.gates.syntax import check_order
from adaptry.core.gates.tokens import Token, tokens_of
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.suggestions import suggestion

_MAX_CALLS = 20
_WORDS = frozenset({"true", "false", "in"})
_CONVERSIONS = frozenset({"double", "int", "size"})
_METHODS = frozenset({"startsWith", "endsWith", "contains"})
_SUGGESTIONS = {"and": "&&", "or": "||", "not": "!", "is": "==", "true": "true", "false": "false"}
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter", "has"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function: its arguments by name, and the field of its result (None: it has none)."""

    function: str
    arguments: Mapping[str, Scalar]
    field: str | None = None

    def text(self, name: str) -> str:
        """An argument that is a text."""
        return str(self.arguments[name])

    def optional(self, name: str) -> str | None:
        found = self.arguments.get(name)
        return None if found is None else str(found)

    def number(self, name: str) -> float:
        return float(self.arguments[name])


@dataclass(frozen=True, slots=True)
class PolicyCondition:
    """A condition as written, its calls, and its expression with a name for each call: `call0`, `call1`."""

    source: str
    expression: str
    calls: tuple[Call, ...]

    @classmethod
    def parse(cls, source: str) -> PolicyCondition:
        """A new condition. Raises `Invalid`, with the position and the nearest valid word. This does not call
        CEL's parser.
        """
        require_visible(source, "a condition")
        return cls.stored(source)

    @classmethod
    def stored(cls, source: str) -> PolicyCondition:
        """A condition that was accepted before. Raises `Invalid`."""
        if len(source) > MAX_CONDITION:
            raise Invalid(
                f"a condition may have at most {MAX_CONDITION:,} characters; this one has {len(source):,}"
            )
        parser = _Parser(tokens_of(source))
        expression = parser.expression()
        if not parser.calls:
            raise Invalid(
                "a condition must call at least one function: " + ", ".join(f"{name}()" for name in FUNCTIONS)
            )
        return cls(source.strip(), expression, tuple(parser.calls))


def require_visible(text: str, what: str) -> None:
    """Raises `Invalid` for characters that a reader does not see, such as those that reverse a text."""
    for place, character in enumerate(text, 1):
        if not character.isprintable() and character not in "\n\r\t":
            raise Invalid(f"{what} has a character that is not visible: U+{ord(character):04X}, at {place}")


class _Parser:
    """Replaces calls by names, and refuses every other identifier that CEL does not define."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self.calls: list[Call] = []

    def expression(self) -> str:
        parts: list[str] = []
        read: list[Token] = []
        while (token := self._next()) is not None:
            read.append(token)
            if token.kind != "word" or token.text in _WORDS:
                if token.text == "=":
                    instead = ">=" if self._sees(">") else "<=" if self._sees("<") else "=="
                    raise Invalid(f"column {token.column}: = is not a comparison; write {instead}")
                parts.append(token.text)
            elif parts and parts[-1] == ".":
                parts.append(_method(token, read[-3] if len(read) > 2 else None))
            elif token.text in _CONVERSIONS and self._sees("("):
                parts.append(token.text)
            elif token.text in FUNCTIONS:
                parts.append(self._call(token, FUNCTIONS[token.text]))
                read[-1] = Token("call", written(token.text), token.column)
            else:
                raise Invalid(_unknown(token, self._sees("(")))
        check_order(read)
        return " ".join(parts)

    def _call(self, name: Token, function: GateFunction) -> str:
        self._expect("(", f"after {name.text}", name.text, function)
        given: list[tuple[Token | None, Scalar]] = []
        if not self._take(")"):
            while True:
                given.append(self._argument(name.text, function))
                if self._take(")"):
                    break
                self._expect(
                    ",", f"(or a closing parenthesis) after an argument of {name.text}", name.text, function
                )
        arguments = _bound(name, function, given)
        field = self._field(name, function) if function.fields else None
        if len(self.calls) == _MAX_CALLS:
            raise Invalid(f"a condition may have at most {_MAX_CALLS} calls")
        self.calls.append(Call(name.text, arguments, field))
        return f"call{len(self.calls) - 1}"

    def _argument(self, called: str, function: GateFunction) -> tuple[Token | None, Scalar]:
        name = self._next()
        if name is not None and name.kind == "word" and self._take("="):
            return name, self._literal(self._next(), called)
        del function
        return None, self._literal(name, called)

    def _literal(self, token: Token | None, called: str) -> Scalar:
        is_negative = token is not None and token.text == "-"
        if is_negative:
            token = self._next()
        if token is not None and token.kind == "number":
            return -float(token.text) if is_negative else float(token.text)
        if token is not None and token.kind == "text" and not is_negative:
            return str(ast.literal_eval(token.text))
        where = f"column {token.column}" if token else "at the end"
        is_word = token is not None and token.kind == "word" and token.text not in FUNCTIONS
        quoted = f'; write "{token.text[:40]}"' if token is not None and is_word else ""
        raise Invalid(
            f"{where}: arguments of {called} are texts in quotation marks or numbers, written out, not"
            f" computed{quoted}"
        )

    def _field(self, name: Token, function: GateFunction) -> str:
        fields = " or ".join(f".{one}" for one in function.fields)
        if not self._take("."):
            raise Invalid(f"column {name.column}: {name.text}(…) must be followed by {fields}")
        token = self._next()
        if token is None or token.text not in function.fields:
            text = token.text if token else ""
            raise Invalid(
                f"column {(token or name).column}: {name.text}(…) has no .{text[:40]} (it has {fields})"
                + suggestion(text, function.fields)
            )
        return token.text

    def _next(self) -> Token | None:
        if self._position == len(self._tokens):
            return None
        self._position += 1
        return self._tokens[self._position - 1]

    def _sees(self, text: str) -> bool:
        return self._position < len(self._tokens) and self._tokens[self._position].text == text

    def _take(self, text: str) -> bool:
        is_there = self._sees(text)
        self._position += is_there
        return is_there

    def _expect(self, text: str, where: str, called: str, function: GateFunction) -> None:
        if not self._take(text):
            found = self._next()
            place = f"column {found.column}" if found else "at the end"
            raise Invalid(f"{place}: {text} is missing {where}; write {function.usage(called)}")


def _bound(
    called: Token, function: GateFunction, given: list[tuple[Token | None, Scalar]]
) -> dict[str, Scalar]:
    """The arguments by name. Raises `Invalid`."""
    usage, where = function.usage(called.text), f"column {called.column}: {called.text}"
    by_name = {one.name: one for one in function.parameters}
    bound: dict[str, Scalar] = {}
    is_named = False
    for position, (name, value) in enumerate(given):
        is_named = is_named or name is not None
        if name is None and is_named:
            raise Invalid(f"{where}: arguments without a name come first; write {usage}")
        if name is None and position >= len(function.parameters):
            raise Invalid(f"{where} has too many arguments; write {usage}")
        key = function.parameters[position].name if name is None else name.text
        if key not in by_name:
            raise Invalid(f"{where} has no argument {key[:40]}{suggestion(key, by_name)} ({usage})")
        if key in bound:
            raise Invalid(f"{where} has {key} twice")
        bound[key] = _typed(where, by_name[key], value)
    for parameter in function.parameters:
        if parameter.name not in bound and parameter.default is not None:
            bound[parameter.name] = parameter.default
        elif parameter.name not in bound and not parameter.is_optional:
            raise Invalid(f"{where} needs {parameter.name}; write {usage}")
    return bound


def _typed(called: str, parameter: Parameter, value: Scalar) -> Scalar:
    if (parameter.type == "number") != isinstance(value, float):
        kind = "a number" if parameter.type == "number" else "a string in quotation marks"
        raise Invalid(f"{called}: {parameter.name} must be {kind}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{called}: {parameter.name} is too large")
    if parameter.name == "confidence" and not 0.5 <= float(value) < 1:
        raise Invalid(f"{called}: confidence must be at least 0.5 and less than 1, not {value}")
    if parameter.name == "margin" and float(value) < 0:
        raise Invalid(
            f"{called}: margin, which is how much worse is accepted, must be 0 or more, not {value}"
        )
    if isinstance(value, str) and not (value.strip() and value.isprintable() and len(value) <= 200):
        raise Invalid(f"{called}: {parameter.name} must be a string of 1 to 200 printable characters")
    return value


def _method(token: Token, of: Token | None) -> str:
    if token.text in _METHODS:
        return token.text
    if token.text in _MACROS:
        raise Invalid(f"column {token.column}: conditions have no macros such as {token.text}()")
    if of is not None and of.kind == "call":
        raise Invalid(
            f"column {token.column}: {of.text} has no .{token.text[:40]}{suggestion(token.text, _METHODS)};"
            f" write {of.text} without it"
        )
    raise Invalid(f"column {token.column}: unknown word .{token.text[:40]}{suggestion(token.text, _METHODS)}")


def _unknown(token: Token, is_call: bool) -> str:
    if token.text in _MACROS and is_call:
        return f"column {token.column}: conditions have no macros such as {token.text}()"
    what = f"column {token.column}: unknown {'function' if is_call else 'word'} {token.text[:40]}"
    if token.text in _METHODS:
        return f'{what}; it is written after a text, as in state().{token.text}("\N{HORIZONTAL ELLIPSIS}")'
    if (instead := _SUGGESTIONS.get(token.text.lower())) is not None:
        return f"{what}; write {instead}"
    if near := suggestion(token.text, FUNCTIONS, template="{}()"):
        return what + near
    quoted = "" if is_call else f'; write a text in quotation marks: "{token.text[:40]}"'
    return f"{what}{quoted} (functions: {', '.join(FUNCTIONS)})"
