"""Divisors of a condition that are zero, so that a quotient that does not exist meets no condition.

CEL follows IEEE 754: 0.5 divided by 0.0 is infinite, and so at least as large as any threshold. A division
of whole numbers by zero is an error, but CEL drops errors beside `||`. So divisors are computed by
themselves. If one is zero, the condition counts only if its result is the same for other divisors in its
place, as in `metric("b") == 0.0 || metric("a") / metric("b") > 0.9`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from adaptry.core.gates.expression import PolicyCondition
from adaptry.core.gates.functions import Scalar, written
from adaptry.core.gates.tokens import Token, tokens_of

_DIVISIONS = frozenset({"/", "%"})
_INSTEAD: Mapping[type, tuple[Scalar, ...]] = {
    float: (1e-300, -1e-300, 1e300, float("nan")),
    int: (1, -1, 10**9),
}
_MAX_DIVISORS = 3
"""Maximum number of divisors that are replaced; with more, the condition has no result."""
Compute = Callable[[str, Mapping[str, Scalar]], object]
"""The value of an expression with these variables; None if it has none."""


def zero_divisor(condition: PolicyCondition, values: Mapping[str, Scalar], compute: Compute) -> str | None:
    """A divisor of the condition that is zero and on which its result depends, as written; None if there is
    none. `values`: of its calls.
    """
    tokens = tokens_of(condition.expression)
    zero: list[tuple[int, int, tuple[Scalar, ...]]] = []
    for start, end in _divisors(tokens):
        value = compute(_text(tokens[start:end]), values)
        is_inside = bool(zero) and start < zero[-1][1]
        if type(value) in _INSTEAD and value == 0 and not is_inside:
            zero.append((start, end, _INSTEAD[type(value)]))
    if not zero:
        return None
    first = _as_written(_text(tokens[zero[0][0] : zero[0][1]]), condition)
    if len(zero) > _MAX_DIVISORS:
        return first
    parts: list[str] = []
    position = 0
    for place, (start, end, _) in enumerate(zero):
        parts += [_text(tokens[position:start]), f"divisor{place}"]
        position = end
    changed = " ".join([*parts, _text(tokens[position:])])
    results = [
        compute(changed, {**values, **{f"divisor{place}": one for place, one in enumerate(chosen)}})
        for chosen in product(*(instead for _, _, instead in zero))
    ]
    is_same = results[0] is not None and all(result is results[0] for result in results)
    return None if is_same else first


def _divisors(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Where each right operand of a division begins and ends."""
    for place, token in enumerate(tokens):
        if token.kind == "sign" and token.text in _DIVISIONS:
            yield place + 1, _end_of_operand(tokens, place + 1)


def _end_of_operand(tokens: Sequence[Token], place: int) -> int:
    while tokens[place].text == "-":
        place += 1
    while True:
        depth = 0
        while True:
            depth += (tokens[place].text in "([") - (tokens[place].text in ")]")
            place += 1
            if depth == 0 and not (place < len(tokens) and tokens[place].text == "("):
                break
        if place == len(tokens) or tokens[place].text != ".":
            return place
        place += 1


def _as_written(expression: str, condition: PolicyCondition) -> str:
    """A part of the expression, with the calls instead of their names."""
    for place, call in reversed(list(enumerate(condition.calls))):
        expression = expression.replace(f"call{place}", written(call.function))
    return expression.replace("( ", "(").replace(" )", ")")


def _text(tokens: Sequence[Token]) -> str:
    return " ".join(token.text for token in tokens)
