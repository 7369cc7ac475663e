"""The wording of output: help without a command, wrong options, names, counts, warnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.usefixtures("out")


@pytest.mark.parametrize("words", [(), ("base",), ("alias",), ("token",), ("metrics",)], ids=str)
def test_a_group_without_a_command_shows_its_help(run, words: tuple[str, ...]) -> None:
    result = run(*words, code=2)

    assert result.stderr.startswith("Usage: adaptry")
    assert "\\n" not in result.stderr
    assert "error:" not in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("push", "./out", "acme/tone", "--force", "--reason", "x"),
            "(--reason) must have 3 to 1024 characters",
        ),
        (("push", "./out", "acme/tone", "--tag", "two words"), "(--tag) must have 1 to 64 characters"),
        (("push", "./out", "acme/tone", "--metric", "a b=1"), "(--metric) must have 1 to 64 characters"),
        (("create", "acme/tone", "--description", "x" * 5000), "at most 4096 characters"),
        (("push", "./out", "acme/con"), "a device on Windows"),
        (("create", "aux.txt/tone"), "a device on Windows"),
        (("push", "./out", "acme/tone", "--alias", "nul"), "a device on Windows"),
        (("push", "./out", "acme/tone", "--base", "no name"), "ORG/MODEL"),
        (("alias", "rm", "acme/tone"), "acme/tone@ALIAS"),
        (("alias", "rm", "acme/tone@2"), "acme/tone@ALIAS"),
        (("alias", "rm", "acme/tone@staging", "prod"), "acme/tone@ALIAS"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_errors_about_options_name_the_option_and_its_values(run, words: tuple[str, ...], says: str) -> None:
    message = run(*words, code=2).stderr

    assert says in message
    for leak in ("String should", "Input should", "Value error", "force_reason", ": :"):
        assert leak not in message


def test_a_term_that_excludes_is_not_an_option(run, answer) -> None:
    run("push", "./out", "acme/tone", "--tag", "fr")
    tiny_lora(Path("lone"), seed=3)
    run("push", "./lone", "acme/lone")

    def found(*words: str) -> list[str]:
        return [version["name"] for version in answer("search", *words)]

    assert found("-method:lora") == []
    assert found("--limit", "5", "-tag:fr") == ["acme/lone"]
    assert found("-tag:fr", "method:lora", "--limit", "5") == ["acme/lone"]
    assert found("-lone") == ["acme/tone"]
    assert found("-tag:fr", "OR", "-lone") == ["acme/lone", "acme/tone"]
    assert found("-(tag:fr", "OR", "lone)") == []
    assert found("tag:fr OR lone", "--sort", "name", "--reverse") == ["acme/tone", "acme/lone"]
    assert run("search", "--", "-lone").stdout == run("search", "-lone").stdout
    assert "Usage" in run("search", "--help").stdout
    run("search", "--limt", "5", code=2)


def test_commands_report_an_adapter_without_versions(run, answer) -> None:
    run("create", "acme/empty")

    for words in (("pull", "acme/empty"), ("check", "acme/empty"), ("copy", "acme/empty", "acme/b")):
        assert "acme/empty has no version yet" in run(*words, code=3).stderr
    listed = run("ls", "acme/empty")
    assert (listed.stdout, "no version yet" in listed.stderr) == ("", True)
    assert "no version acme/empty@3" in run("pull", "acme/empty@3", code=3).stderr


def test_an_alias_is_removed_by_either_spelling(run, answer) -> None:
    run("push", "./out", "acme/tone")
    for words in (("acme/tone@staging",), ("acme/tone", "staging")):
        run("alias", "set", "acme/tone@1", "staging")
        run("alias", "rm", *words)
        assert answer("alias", "ls", "acme/tone") == []


def test_a_forced_version_that_goes_live_is_reported(run, base: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    tiny_lora(Path("misfit"), hidden=32)
    run("push", "./misfit", "acme/tone", "--force", "--reason", "a test of the worker")
    run("push", "./out", "acme/tone")

    for words in (("promote", "acme/tone@1"), ("alias", "set", "acme/tone@1", "staging")):
        moved = run(*words)
        assert "the checks blocked version 1 and were overruled: a test of the worker" in moved.stderr
    assert "overruled" not in run("promote", "acme/tone@2").stderr
    assert "were overruled" in run("rollback", "acme/tone@prod").stderr


def test_a_single_weight_is_described_in_the_singular(run, base: Path) -> None:
    pytest.importorskip("torch")
    tiny_lora(Path("one"), layers=1, targets=("q_proj",), config={"layers_to_transform": [0]})

    assert (
        "1 weight would change"
        in run("merge", "--base", "./base", "./one", "-o", "./merged", "--dry-run").stderr
    )
    assert "1 weight changed" in run("merge", "--base", "./base", "./one", "-o", "./merged").stderr
    assert json.loads(Path("merged/adaptry_merge.json").read_text())["baked"] == 1
