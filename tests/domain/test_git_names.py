"""The name of an alias, branch or tag is one that git accepts."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from adaptry.core.errors import InvalidRef
from adaptry.core.git_names import find_name_problem, to_valid_name
from adaptry.core.hub_revision import parse_branch, parse_tag
from adaptry.core.refs import AdapterName, Label, Ref, parse_alias, parse_stored_alias

BROKEN = [
    "HEAD", "head", "FETCH_HEAD", "ORIG_HEAD", "a..b", "x.lock", "X.LOCK", "x.lock.lock", ".a", "a.", "a@{1}",
    "a//b", "/a", "a/", "a/.b", "a/b.lock", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a\tb",
    "a\x7f", "-a", "@", "Main", "LATEST", "v1.", ".3", "-abcdef0",
]  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_name_invalid_in_git_is_refused_with_a_valid_one(name: str) -> None:
    for parse in (parse_alias, parse_branch, parse_tag):
        with pytest.raises(InvalidRef, match="; write ") as caught:
            parse(name)
        shown = caught.value.message.rpartition("; write ")[2]
        assert parse(shown) == shown


@pytest.mark.parametrize("name", ["7", "007", "v1", "V1", "v01", "v1234567890", "abcdef0", "ABCDEF0"])
def test_a_new_name_that_people_would_take_for_a_version_or_an_id_is_refused(name: str) -> None:
    for parse in (parse_alias, parse_branch, parse_tag):
        with pytest.raises(InvalidRef, match="would be mistaken for something else"):
            parse(name)


def test_v0_is_an_ordinary_name() -> None:
    assert parse_alias("v0") == parse_branch("v0") == parse_tag("v0") == "v0"
    assert Ref.parse("acme/tone@v0") == Ref(AdapterName("acme", "tone"), Label("v0"))


@pytest.mark.parametrize("name", ["v0", "v01", "v1234567890", "V1", "ABCDEF0"])
def test_an_ambiguous_name_of_an_older_registry_can_still_be_used(name: str) -> None:
    assert parse_stored_alias(name) == name
    assert Ref.parse(f"acme/tone@{name}") == Ref(AdapterName("acme", "tone"), Label(name))


@pytest.mark.parametrize("name", ["a..b", "x.lock", "HEAD", "a."])
def test_an_alias_of_an_older_registry_can_still_be_used(name: str) -> None:
    assert parse_stored_alias(name) == name


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("name", [*BROKEN, "prod", "v1-beta", "runs/a.step-100", "a_b+c", "exp.2"])
def test_git_agrees_wherever_it_has_a_rule(name: str) -> None:
    run = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, check=False)
    if run.returncode:
        assert find_name_problem(name)
    near = to_valid_name(name)
    assert subprocess.run(["git", "check-ref-format", "--branch", near], check=False).returncode == 0
