"""`make test`, `make test-slow` and `make test-all` together run every test, and the first two have no test
in common.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

ROOT = Path(__file__).parents[1]
ALL = [set(), {"slow"}, {"heavy"}, {"slow", "heavy"}]


def selects(target: str, marks: set[str]) -> bool:
    """Whether this target of the Makefile runs a test with these marks."""
    rule = re.search(
        rf'^{target}:.*\n(?:\t.*\n)*?\t.*SELECT="(.*)"', (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert rule is not None, f"{target} runs no tests"
    return not rule[1] or Expression.compile(rule[1]).evaluate(lambda name, **_: name in marks)


@pytest.mark.parametrize("marks", ALL, ids=lambda marks: "+".join(sorted(marks)) or "none")
def test_a_test_runs_in_one_of_the_two_quicker_selections_unless_it_is_heavy(marks: set[str]) -> None:
    runs = [target for target in ("test", "test-slow") if selects(target, marks)]
    assert len(runs) == ("heavy" not in marks)


@pytest.mark.parametrize("marks", ALL, ids=lambda marks: "+".join(sorted(marks)) or "none")
def test_make_test_all_runs_every_test(marks: set[str]) -> None:
    assert selects("test-all", marks)


def test_continuous_integration_runs_the_quick_and_the_slow_tests() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"^(?:exec )?make (\S+)(?: WORKERS=\d+)?$", text, re.MULTILINE)
    assert commands == ["test", "test-slow"]


def test_every_path_in_the_list_of_slow_tests_exists() -> None:
    listed = re.findall(r'^    "(tests/[^"]*)",$', (ROOT / "tests" / "conftest.py").read_text(), re.MULTILINE)
    assert listed
    for place in listed:
        file, *names = place.split("::")
        assert (ROOT / file).exists(), place
        text = (ROOT / file).read_text() if names else ""
        assert all(re.search(rf"(class|def) {name}\b", text) for name in names), place


@pytest.mark.parametrize(
    "selection, is_left_unread",
    [("not slow and not heavy", True), ("slow and not heavy", False), ("heavy", False), ("", False)],
)
def test_a_slow_place_is_left_unread_only_where_no_slow_test_is_selected(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, selection: str, is_left_unread: bool
) -> None:
    places = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert places is not None
    monkeypatch.setattr(request.config.option, "markexpr", selection)
    assert bool(places.pytest_ignore_collect(ROOT / "tests" / "jobs", request.config)) == is_left_unread
    assert not places.pytest_ignore_collect(ROOT / "tests" / "domain", request.config)


@pytest.mark.parametrize(
    "selection, is_left_unread",
    [("slow and not heavy", True), ("not slow and not heavy", False), ("heavy", False), ("", False)],
)
def test_a_file_without_slow_tests_is_left_unread_where_only_slow_tests_are_selected(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, selection: str, is_left_unread: bool
) -> None:
    places = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert places is not None
    monkeypatch.setattr(request.config.option, "markexpr", selection)

    def is_unread(file: str) -> bool:
        return bool(places.pytest_ignore_collect(ROOT / "tests" / file, request.config))

    assert is_unread("domain/test_refs.py") == is_left_unread
    assert not is_unread("storage/test_postgres.py")  # its tests use a server
    assert not is_unread("merging/test_rounding_loss.py")  # a test is marked in its file
    assert not is_unread("api/test_uploads.py")  # a test is listed in `SLOW`
