"""Matches the paths that a `.gitignore` leaves out, as git does (gitignore(5)).

`pathspec` parses the patterns and RE2 matches them, in time linear in the path. Patterns and paths are
untrusted, so both are limited, and RE2 limits the memory for all patterns together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING

from adaptry.core.errors import Invalid

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MAX_RULES = 300
_MAX_PATTERN = 255
_DEEPEST = 8


def parse_gitignore(text: str) -> GitIgnoreSpec:
    """The patterns in `text`; at most `MAX_RULES`, without those that git skips too. Raises `Invalid` if the
    patterns together exceed the memory limit.
    """
    import re2  # 3 MB with its libraries; few repositories have this file
    from pathspec import GitIgnoreSpec

    lines = (line for line in text.splitlines() if len(line) <= _MAX_PATTERN)
    patterns = islice(chain.from_iterable(map(_patterns, lines)), MAX_RULES)
    try:
        return GitIgnoreSpec(tuple(patterns), backend="re2")
    except re2.error as error:
        raise Invalid("this .gitignore is too complicated; use fewer or shorter patterns") from error


def is_ignored(path: str, ignored: GitIgnoreSpec) -> bool:
    """Whether the file at `path`, or a folder above it, is left out; False for paths that are too long or too
    deep to be stored.
    """
    parts = path.split("/")
    if len(path) > _MAX_PATTERN or len(parts) > _DEEPEST or not _is_unicode(path):
        return False
    *folders, _ = accumulate(parts, "{}/{}".format)
    return any(ignored.match_file(beginning) for beginning in (*(f"{folder}/" for folder in folders), path))


def _patterns(line: str) -> Sequence[GitIgnoreSpecPattern]:
    """The pattern in a line; none for a comment or a pattern that `pathspec`, `re` or RE2 cannot read."""
    import re2
    from pathspec import GitIgnoreSpec

    try:
        read = GitIgnoreSpec.from_lines([line], backend="re2").patterns
    except (ValueError, re.error, re2.error):
        return ()
    return [pattern for pattern in read if pattern.include is not None]


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can hold and UTF-8 cannot."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
