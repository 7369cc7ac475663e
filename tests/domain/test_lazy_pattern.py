"""Patterns that are compiled at their first use behave like compiled ones."""

from __future__ import annotations

import copy
import re

import pytest

from adaptry.core.lazy_pattern import lazy_pattern


def test_a_pattern_finds_and_replaces_like_a_compiled_one() -> None:
    lazy, compiled = (make(r"(?P<word>[a-z]+)\d", re.IGNORECASE) for make in (lazy_pattern, re.compile))

    for _ in range(2):
        assert lazy.sub("-", "Ab1 c2") == compiled.sub("-", "Ab1 c2") == "- -"
        assert [found["word"] for found in lazy.finditer("Ab1 c2")] == ["Ab", "c"]
        assert lazy.fullmatch("x") is compiled.fullmatch("x") is None
    assert (lazy.pattern, lazy.flags, lazy.groups) == (compiled.pattern, compiled.flags, compiled.groups)


def test_a_pattern_matches_bytes() -> None:
    assert lazy_pattern(rb"\xff.").search(b"a\xff\x01")


def test_a_pattern_can_be_copied() -> None:
    assert copy.deepcopy(lazy_pattern("a+")).match("aa")


def test_an_invalid_pattern_raises_at_the_first_use() -> None:
    wrong = lazy_pattern("(")

    with pytest.raises(re.error, match="missing"):
        wrong.match("a")
