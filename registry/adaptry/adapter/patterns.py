"""Patterns out of an untrusted config, made safe to match.

PEFT feeds `target_modules`, `rank_pattern` keys and the like to `re`, where a short pattern can run for
hours. Here a pattern is compiled only if it cannot backtrack badly: no repeat inside a repeat, few unbounded
repeats (those of a look-ahead count with the rest), no look-behind, no back-references, and no look-around inside a
repeat. Plain module names, nearly all there is, always pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from re import _constants as op  # type: ignore[attr-defined]  # the parser has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, TypeVar

from adaptry.errors import InvalidConfig

_MAX_UNBOUNDED = 4
_LOOKS = (op.ASSERT, op.ASSERT_NOT)
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT)
_Value = TypeVar("_Value")


@lru_cache(maxsize=4096)
def compile_suffix(pattern: str) -> re.Pattern[str]:
    """Matches the module names PEFT matches with `rank_pattern`'s rule: the end of a dotted path.

    PEFT 0.21 (`get_pattern_key`): `re.match(rf"(.*\\.)?({key})$", name)`. Raises `InvalidConfig`.
    """
    check_pattern(pattern)
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})$")
    except re.error as error:  # `(?i)` and the like, which must stand first
        raise InvalidConfig(f"adapter_config.json: {pattern[:80]!a} is not a pattern ({error})") from None


def first_match(patterns: Mapping[str, _Value], name: str, default: _Value) -> _Value:
    """The value of the first pattern, in the mapping's order, that matches `name`; as PEFT resolves it."""
    for pattern, value in patterns.items():
        if compile_suffix(pattern).match(name):
            return value
    return default


def check_pattern(pattern: str) -> None:
    """Raises `InvalidConfig` unless `pattern` compiles and is cheap to match."""
    try:
        tree = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidConfig(f"adapter_config.json: {pattern[:80]!a} is not a pattern ({error})") from None
    unbounded = 0
    for node, arguments, repeated in _walk(tree, False):
        is_ahead = node in _LOOKS and arguments[0] > 0
        if (
            node in (op.GROUPREF, op.GROUPREF_EXISTS)
            or (node in _LOOKS and not is_ahead)
            or (repeated and (is_ahead or node in _REPEATS))
        ):
            raise InvalidConfig(
                f"adapter_config.json: the pattern {pattern[:80]!a} could take for ever to match; "
                "write plain module names instead"
            )
        if node in _REPEATS and arguments[1] > 64:
            unbounded += 1
    if unbounded > _MAX_UNBOUNDED:
        raise InvalidConfig(
            f"adapter_config.json: the pattern {pattern[:80]!a} has more than {_MAX_UNBOUNDED} repeats"
        )


def _walk(tree: Any, repeated: bool) -> Iterator[tuple[Any, Any, bool]]:
    """Every node with whether it stands inside a repeat. (`Any`: the parser's tree is untyped.)"""
    for node, arguments in tree:
        yield node, arguments, repeated
        inside = repeated or (node in _REPEATS and arguments[1] > 1)
        for child in _children(node, arguments):
            yield from _walk(child, inside)


def _children(node: Any, arguments: Any) -> list[Any]:
    if node in _REPEATS or node is getattr(op, "POSSESSIVE_REPEAT", None):
        return [arguments[2]]
    if node is op.BRANCH:
        return list(arguments[1])
    if node is op.SUBPATTERN:
        return [arguments[3]]
    if node in _LOOKS:
        return [arguments[1]]
    if node is getattr(op, "ATOMIC_GROUP", None):
        return [arguments]
    return []
