"""Finds the first place where a condition is not an expression of CEL.

CEL's parser reports this too, but in terms of its grammar, and for an expression whose calls were replaced by
names. So the order of a condition's parts is checked here first. This check accepts everything that CEL can
compute; errors that it misses are reported by CEL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from adaptry.core.errors import Invalid
from adaptry.core.gates.tokens import Token

_CLOSES = {"(": ")", "[": "]"}
_OPENS = {closing: opening for opening, closing in _CLOSES.items()}
_DEEP = 30  # levels of brackets; CEL's parser refuses 60 in most expressions, and computes 40
_MAX_INTEGER = 2**63 - 1  # of CEL's integers
_PREFIXES = frozenset({"-", "!"})
_JOINS = frozenset(
    {"&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in", "?", ":", ","}
)


def check_order(tokens: Sequence[Token]) -> None:
    """Raises `Invalid` with the column of the first part that cannot be in its place."""
    opened: list[Token] = []
    choices: list[Token | None] = [None]  # the ? that waits for its : in each open bracket
    before: Token | None = None
    for token, following in zip_longest(tokens, tokens[1:]):
        is_after_value = before is not None and _ends_value(before)
        text = token.text if token.kind in ("sign", "word") else ""
        _check_number(token, before)
        if text in _OPENS:
            _close(opened, token, before, is_after_value)
            _require_complete(choices.pop())
        elif text == "." and is_after_value:
            pass
        elif text == "," and _is_sign(before, "[") and _is_sign(following, "]"):
            pass  # to CEL, [,] is an empty list
        elif text in _JOINS and is_after_value:
            _check_join(token, opened)
            choices[-1] = _choice_after(token, choices[-1])
        elif text in _CLOSES:
            if is_after_value and text == "(" and before is not None and before.kind != "word":
                raise Invalid(f"column {token.column}: {_lacks_operator(before, token)}")
            opened.append(token)
            choices.append(None)
        elif text == "in" or (token.kind == "sign" and text not in _PREFIXES):
            raise Invalid(f"column {token.column}: {_misplaced(token, before)}")
        elif is_after_value and before is not None and before.text != ".":
            raise Invalid(f"column {token.column}: {_lacks_operator(before, token)}")
        before = token
    if before is not None and not _ends_value(before):
        raise Invalid(f"the condition ends after {before.text}, where a value must follow{_percent(before)}")
    if opened:
        raise Invalid(
            f"column {opened[-1].column}: this {opened[-1].text} is not closed; add a"
            f" {_CLOSES[opened[-1].text]}"
        )
    _require_complete(choices[0])


def _check_number(token: Token, before: Token | None) -> None:
    if token.kind != "number":
        return
    is_whole = token.text.isdigit()
    maximum = _MAX_INTEGER + _is_sign(before, "-")
    if (is_whole and int(token.text) > maximum) or (not is_whole and math.isinf(float(token.text))):
        largest = f"{maximum} (write 1e30 for a larger one)" if is_whole else "1.7e308"
        raise Invalid(
            f"column {token.column}: {token.text[:40]} is too large; the largest number is {largest}"
        )


def _choice_after(token: Token, choice: Token | None) -> Token | None:
    """The ? that waits for its : after an operator."""
    if token.text == "?":
        if choice is not None:
            raise Invalid(
                f"column {token.column}: put the choice between the ? of column {choice.column} and its : in"
                " parentheses: a ? (b ? c : d) : e"
            )
        return token
    if token.text == ":":
        if choice is None:
            raise Invalid(f"column {token.column}: this : has no ?; a choice is c ? a : b")
        return None
    if token.text == ",":
        _require_complete(choice)
    return choice


def _require_complete(choice: Token | None) -> None:
    if choice is not None:
        raise Invalid(f"column {choice.column}: this ? has no :; a choice is c ? a : b")


def nesting_problem(tokens: Sequence[Token]) -> str | None:
    """Why CEL's parser, whose recursion is limited, may have refused an expression with many brackets."""
    depth = deepest = 0
    for token in tokens:
        depth += (token.text in _CLOSES) - (token.text in _OPENS)
        deepest = max(deepest, depth)
    if deepest < _DEEP:
        return None
    return (
        f"it has {deepest} levels of parentheses or brackets, which is too many; use fewer, or several"
        " conditions, all of which must be met"
    )


def _is_sign(token: Token | None, text: str) -> bool:
    return token is not None and (token.kind, token.text) == ("sign", text)


def _ends_value(token: Token) -> bool:
    """Whether a value may end here, after which an operator must follow."""
    if token.kind == "sign":
        return token.text in (")", "]")
    return token.text != "in" or token.kind == "text"


def _close(opened: list[Token], token: Token, before: Token | None, is_after_value: bool) -> None:
    if not opened:
        raise Invalid(f"column {token.column}: this {token.text} closes nothing; remove it")
    if opened[-1].text != _OPENS[token.text]:
        raise Invalid(
            f"column {token.column}: {token.text} cannot close the {opened[-1].text} of column"
            f" {opened[-1].column}"
        )
    is_empty = before is opened[-1]
    if not (is_after_value or is_empty or (token.text == "]" and before is not None and before.text == ",")):
        shown = before.text if before is not None else ""
        raise Invalid(f"column {token.column}: a value is missing between {shown} and {token.text}")
    opened.pop()


def _check_join(token: Token, opened: Sequence[Token]) -> None:
    if token.text == "," and not opened:
        raise Invalid(
            f"column {token.column}: a comma only separates arguments; write decimals with a point (0.9), and"
            " join conditions by &&"
        )


def _lacks_operator(before: Token, token: Token) -> str:
    return f"an operator is missing between {before.text[:40]} and {token.text[:40]}, such as && or >="


def _misplaced(token: Token, before: Token | None) -> str:
    pair = (before.text if before is not None else "") + token.text
    instead = {"<>": "; write !=", "//": "; conditions have no comments"}.get(pair, "")
    if token.text == ".":
        instead = "; write a zero before the point: 0.9"
    where = f"cannot follow {before.text}" if before is not None else "cannot begin a condition"
    return f"{token.text} {where}{instead or _percent(before)}"


def _percent(before: Token | None) -> str:
    is_percent = before is not None and before.text == "%"
    return "; % is the remainder of a division, so write 0.9 for 90 %" if is_percent else ""
