"""Lifecycle states on the command line: set with a reason, and shown to everyone who pulls the version."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.testing.samples import tiny_lora

from .conftest import Run

Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def two(run: Run, out: Path, tmp_path: Path) -> None:
    """Two versions of acme/tone; `prod` points at the first."""
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", str(tiny_lora(tmp_path / "better", seed=2)), "acme/tone")


def test_a_version_is_deprecated_in_favour_of_another(run: Run, answer: Ask) -> None:
    said = run("deprecate", "acme/tone@1", "--reason", "it stutters", "--successor", "acme/tone@2")
    assert said.stdout == "acme/tone@1 deprecated\n"
    assert "was active" in said.stderr
    warning = "warning: acme/tone@1 is deprecated: it stutters; use acme/tone@2 instead"
    assert warning in run("pull", "acme/tone@prod", "--to", "pulled").stderr
    assert warning in run("alias", "set", "acme/tone@1", "staging").stderr
    assert warning in run("copy", "acme/tone@1", "acme/copy").stderr
    assert warning in run("stack", "acme/tone@1", "acme/tone@2", "-o", "./both").stderr
    assert "deprecated: it stutters" in run("show", "acme/tone@1").stdout
    assert answer("show", "acme/tone@1")["version"]["last_state_change"]["successor"] == "acme/tone@2"


def test_a_yanked_version_is_still_served_by_number(run: Run, answer: Ask) -> None:
    run("lock", "acme/tone@prod")
    said = run("yank", "acme/tone@prod", "--reason", "wrong data")
    assert "prod still points at this version" in said.stderr
    for words in (
        ("pull", "acme/tone@1", "--to", "one"),
        ("pull", "--locked", "adaptry.lock", "--to", "all"),
    ):
        assert "warning: acme/tone@1 is yanked: wrong data" in run(*words).stderr
    assert [one["number"] for one in answer("search", "name:tone")] == [2]
    assert [one["number"] for one in answer("search", "name:tone state:yanked")] == [1]
    assert "version 1 is yanked" in run("alias", "set", "acme/tone@1", "staging", code=4).stderr


@pytest.mark.parametrize("state", ["quarantine", "revoke"])
def test_a_withdrawn_version_cannot_be_used(run: Run, base: Path, state: str) -> None:
    run("lock", "acme/tone@1")
    run(state, "acme/tone@1", "--reason", "it leaks addresses")
    for words in (
        ("pull", "acme/tone@1", "--to", "pulled"),
        ("pull", "--locked", "adaptry.lock", "--to", "all"),
        ("copy", "acme/tone@1", "acme/copy"),
        ("stack", "acme/tone@1", "acme/tone@2", "-o", "./both"),
        ("merge", "--base", str(base), "acme/tone@1", "-o", "./merged"),
    ):
        assert "it leaks addresses" in run(*words, code=5).stderr, words
    refused = run("pull", "acme/tone@1", "--to", "pulled", code=5).stderr
    (command,) = re.findall(r"`adaptry ([^`]*)`", refused)
    pulled = run(*shlex.split(command), "--to", "pulled")
    assert "it leaks addresses" in pulled.stderr
    assert Path("pulled/adapter_config.json").is_file()


def test_a_push_of_the_files_of_a_revoked_version_warns(run: Run, tmp_path: Path) -> None:
    run("pull", "acme/tone@1", "--to", "again")
    run("revoke", "acme/tone@1", "--reason", "it leaks addresses")
    pushed = run("push", "./again", "acme/tone")
    assert pushed.stdout.startswith("acme/tone@1 ")
    assert "warning: acme/tone@1 is revoked: it leaks addresses" in pushed.stderr


def test_a_restored_version_is_unchanged_and_in_the_history(run: Run, answer: Ask) -> None:
    run("revoke", "acme/tone@2", "--reason", "it leaks addresses")
    assert answer("show", "acme/tone")["version"]["number"] == 1
    assert "is already revoked" in run("revoke", "acme/tone@2", "--reason", "it leaks addresses").stderr
    assert run("restore", "acme/tone@2", "--reason", "it does not").stdout == "acme/tone@2 active\n"
    assert answer("show", "acme/tone")["version"]["number"] == 2
    events = [
        (one["kind"], one["number"], one["detail"]["reason"]) for one in answer("history", "acme/tone")[:2]
    ]
    assert events == [
        ("version.restored", 2, "it does not"),
        ("version.revoked", 2, "it leaks addresses"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("acme/tone@2",),  # without --reason
        ("acme/tone@2", "--reason", "it does not leak", "--replace"),
        ("tone@2", "--reason", "it does not leak"),
        ("backup.tar",),
        ("./backup.tar",),
        ("backups/monday",),  # it is parsed as a name
        ("./out", "--reason", "it does not leak"),
        (),
    ],
)
def test_a_restore_of_neither_a_version_nor_a_backup_shows_how_to_restore_both(
    run: Run, words: tuple[str, ...]
) -> None:
    run("revoke", "acme/tone@2", "--reason", "it leaks addresses")
    said = run("restore", *words, code=2 if words != ("./backup.tar",) else 3).stderr
    assert "adaptry restore NAME@VERSION --reason TEXT" in said
    assert "adaptry restore PATH" in said
    assert "revoked" in run("show", "acme/tone@2").stdout


def test_a_missing_backup_is_reported_before_an_existing_registry(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = run("restore", "./empty", code=3).stderr
    assert "no backup in empty" in said
    assert "--replace" not in said


def test_a_call_that_could_mean_another_version_is_refused(run: Run) -> None:
    assert "pass acme/tone@NUMBER" in run("revoke", "acme/tone", "--reason", "leaked", code=2).stderr
    run("revoke", "acme/tone@1", code=2)
    assert "3 to 1024" in run("revoke", "acme/tone@1", "--reason", "no", code=2).stderr
    assert (
        "not an adapter name"
        in run("yank", "acme/tone@1", "--reason", "old one", "--successor", "tone", code=2).stderr
    )
    run("yank", "acme/tone@7", "--reason", "old one", code=3)
