"""Which files a `.gitignore` excludes. The expected answers are those of `git check-ignore`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid
from adaptry_api.hub.gitignore import is_ignored, parse_gitignore

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
def test_a_path_that_matches_a_line_is_left_out(path: str) -> None:
    assert is_ignored(path, parse_gitignore(TEXT))


@pytest.mark.parametrize("path", KEPT)
def test_a_path_that_no_line_matches_or_a_later_one_re_includes_is_kept(path: str) -> None:
    assert not is_ignored(path, parse_gitignore(TEXT))


def test_matching_a_pattern_takes_bounded_time() -> None:
    lines = parse_gitignore("*a" * 60 + "b\n" + "**/" * 60 + "b")
    assert not is_ignored("a" * 255, lines)
    many = parse_gitignore("\n".join("**/" * 60 + "[a-z]*" * 10 + "*a" * (i % 7) + "b" for i in range(300)))
    assert not any(is_ignored(f"{number:03}{'a' * 252}", many) for number in range(256))


def test_without_patterns_every_file_is_kept() -> None:
    assert not is_ignored("a/b", parse_gitignore("# nothing\n\n"))


def test_patterns_that_are_too_large_together_are_refused() -> None:
    with pytest.raises(Invalid, match="too complicated"):
        parse_gitignore("\n".join("*a" + "?" * 250 for _ in range(300)))


ODD = "a/a/x\n(x)\na[-]b\n[à-ê]\n[z-a]\n[!\n/\nx\\\n\udc80\n"


@pytest.mark.parametrize("path", ["a/a/x", "(x)", "a-b", "é"])
def test_regex_syntax_is_literal_in_gitignore_patterns(path: str) -> None:
    assert is_ignored(path, parse_gitignore(ODD))


@pytest.mark.parametrize("path", ["a/x", "b/(y)", "b/\udc80"])
def test_invalid_lines_and_paths_are_ignored(path: str) -> None:
    assert not is_ignored(path, parse_gitignore(ODD))


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_gives_the_same_answers(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text(TEXT)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=60)
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        input="\n".join(LEFT_OUT + KEPT), check=True, cwd=tmp_path, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert asked.stdout.splitlines() == LEFT_OUT
