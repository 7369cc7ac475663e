"""What a `.gitignore` leaves out. The expected answers are those of `git check-ignore`."""

from __future__ import annotations

import pytest

from adaptry_api.hub.gitignore import is_ignored, parse_rules

TEXT = """
# comments and empty lines say nothing
*.tmp
!keep.tmp
/only-here.txt
logs/
doc/*.md
**/deep/x
a/**/z
file[0-9].txt
\\#odd
"""
LEFT_OUT = [
    "x.tmp", "sub/x.tmp", "only-here.txt", "logs/a.txt", "sub/logs/a.txt", "doc/a.md", "deep/x", "p/q/deep/x",
    "a/z", "a/b/c/z", "file7.txt", "#odd", "logs/keep.tmp",
]  # fmt: skip
KEPT = [
    "keep.tmp", "sub/keep.tmp", "sub/only-here.txt", "logs", "sub/doc/a.md", "doc/sub/a.md", "deep/y", "b/z",
    "file77.txt", "filex.txt", "README.md",
]  # fmt: skip


@pytest.mark.parametrize("path", LEFT_OUT)
def test_what_a_line_fits_is_left_out(path: str) -> None:
    assert is_ignored(path, parse_rules(TEXT))


@pytest.mark.parametrize("path", KEPT)
def test_what_no_line_fits_or_a_later_one_takes_back_is_kept(path: str) -> None:
    assert not is_ignored(path, parse_rules(TEXT))


def test_a_pattern_cannot_take_long() -> None:
    lines = parse_rules("*a" * 60 + "b\n" + "**/" * 60 + "b")
    assert not is_ignored("a" * 255, lines)
    many = parse_rules("\n".join("**/" * 60 + "[a-z]*" * 10 + "*a" * (i % 7) + "b" for i in range(300)))
    assert not any(is_ignored(f"{number:03}{'a' * 252}", many) for number in range(256))


@pytest.mark.parametrize("path", ["a/a/x", "(x)", "^", "a-b", "\\", "é"])
def test_what_means_something_in_other_languages_is_a_letter_here(path: str) -> None:
    assert is_ignored(path, parse_rules("a/a/x\n(x)\n[^]\na[-]b\n[\\]\n[à-ê]\n[z-a]\n[!\n"))
    assert not is_ignored("a/x", parse_rules("a/a/x\n(x)\n[z-a]\n"))
