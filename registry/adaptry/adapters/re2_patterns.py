"""Matches patterns with RE2 where it agrees with `re`: in time linear in the name's length, for any pattern.

RE2 is optional. Most constructs of `re` have the same meaning in RE2, some are refused, and a few have
another meaning. These are not passed to RE2. Neither is any non-ASCII text, for which `\\w`, `\\d`, `\\b` and
case differ. `tests/domain/test_patterns.py` compares the two engines on thousands of generated patterns.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from types import ModuleType

from adaptry.adapters.pattern_process import SUFFIX, compile_rule
from adaptry.core.lazy_pattern import lazy_pattern

# In RE2, {,3} is literal and [:alpha:] is a class; digits and letters after a backslash have other meanings;
# \B never matches an empty text in `re`. For the rest, `re` may warn that a set will change its meaning in a
# later Python.
_DIFFERS = lazy_pattern(r"\{,|\[:|\\[0-9xuUNBZ]|\[\^?\[|--|&&|~~|\|\|")


@cache
def _re2() -> ModuleType | None:
    try:
        return importlib.import_module("re2")
    except ImportError:
        return None


def re2_test(rule: str, pattern: str) -> Callable[[str], object] | None:
    """A function that tests with RE2 whether `pattern` matches a printable ASCII name; None if RE2 is not
    installed, or its result might differ from that of `re`.
    """
    if not pattern.isascii() or _DIFFERS.search(pattern):
        return None
    engine = _re2()
    if engine is None:
        return None
    try:
        compile_rule(rule, pattern)
    except (re.error, RecursionError, OverflowError):
        return None  # the child reports why
    options = engine.Options()
    options.log_errors = False
    try:
        expression = engine.compile(rf"(.*\.)?({pattern})$" if rule == SUFFIX else pattern, options)
    except engine.error:
        return None
    test: Callable[[str], object] = expression.match if rule == SUFFIX else expression.fullmatch
    return test
