"""Matches patterns with RE2 where it agrees with `re`: in time linear in the name, for any pattern.

RE2 is optional. It takes many constructs of `re` in the same sense, refuses some, and takes a few in another
sense: those are left out here before it is asked, and so is everything that is not ASCII, where `\\w`, `\\d`,
`\\b` and case differ. `tests/domain/test_patterns.py` compares the two engines on thousands of generated
patterns.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from types import ModuleType

from adaptry.adapters.pattern_process import SUFFIX, compile_rule

# {,3} is literal in RE2; [:alpha:] is a class there; digits and letters after a backslash are octal,
# hexadecimal or names in different ways; \B never matches an empty text in `re`. The rest may make `re` warn
# of what a set will mean in a later Python.
_DIFFERS = re.compile(r"\{,|\[:|\\[0-9xuUNBZ]|\[\^?\[|--|&&|~~|\|\|")


@cache
def _re2() -> ModuleType | None:
    try:
        return importlib.import_module("re2")
    except ImportError:
        return None


def re2_test(rule: str, pattern: str) -> Callable[[str], object] | None:
    """Whether `pattern` matches a printable ASCII name, by RE2; None if RE2 is not installed, or its answer
    might not be that of `re`.
    """
    if not pattern.isascii() or _DIFFERS.search(pattern):
        return None
    engine = _re2()
    if engine is None:
        return None
    try:
        compile_rule(rule, pattern)
    except (re.error, RecursionError, OverflowError):
        return None  # for the child to say why
    options = engine.Options()
    options.log_errors = False
    try:
        expression = engine.compile(rf"(.*\.)?({pattern})$" if rule == SUFFIX else pattern, options)
    except engine.error:
        return None
    test: Callable[[str], object] = expression.match if rule == SUFFIX else expression.fullmatch
    return test
