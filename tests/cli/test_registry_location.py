"""How the command line locates the registry, and what it creates, reads or refuses there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.usefixtures("out")


@pytest.mark.parametrize("place", ["127.0.0.1:8750", "ftp://host", "htps://host", "registry"])
def test_an_invalid_registry_location_creates_nothing(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for words in (("ls",), ("push", "./out", "acme/tone"), ("whoami",), ("doctor",), ("token", "ls")):
        assert "http://" in run("--registry", place, *words, code=2).stderr
    monkeypatch.setenv("ADAPTRY_URL", place)
    assert place in run("ls", code=2).stderr

    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_reading_creates_no_registry_but_a_push_does(run, tmp_path: Path) -> None:
    for words in (("ls",), ("show", "acme/tone"), ("pull", "acme/tone"), ("base", "ls")):
        assert "no registry in" in run("--registry", "./typo", *words, code=3).stderr
    run("token", "ls", "--data", "./typo", code=3)
    run("doctor", "--registry", "./typo")
    assert not (tmp_path / "typo").exists()

    assert "created a registry in ./typo" in run("--registry", "./typo", "push", "./out", "acme/tone").stderr
    assert "created a registry" not in run("--registry", "./typo", "push", "./out", "acme/tone").stderr


def test_folders_can_be_inspected_without_a_registry(run, answer, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = ("--registry", "./file/registry")

    assert answer(*nowhere, "check", "./out", "--base", "./base")["blocked"] is False
    assert answer(*nowhere, "inspect", "./out")["rank"] == 4
    assert answer(*nowhere, "diff", "./out", "./out") == []


def test_a_read_only_registry_can_be_read(
    run, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("--registry", "./shared")
    pushed = run(*there, "push", "./out", "acme/tone").stdout
    before = sorted(path.name for path in (tmp_path / "shared").rglob("*"))
    # The tests may run as root, which no folder mode restricts.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)

    assert answer(*there, "ls")[0]["name"] == "acme/tone"
    assert run(*there, "pull", "acme/tone", "--to", "./tone").stderr.split()[:2] == pushed.split()
    assert "is read-only" in run(*there, "alias", "set", "acme/tone@1", "prod", code=6).stderr
    refused = run(*there, "push", str(tiny_lora(tmp_path / "new", seed=3)), "acme/tone", code=6)

    assert "is read-only" in refused.stderr
    assert sorted(path.name for path in (tmp_path / "shared").rglob("*")) == before


def test_a_read_only_registry_shows_the_latest_commits_of_other_processes(
    run, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptry.storage.connect import open_local

    run("--registry", "./shared", "push", "./out", "acme/tone")
    writer = open_local(tmp_path / "shared")
    run("--registry", "./shared", "create", "acme/other")
    shutil.copytree(tmp_path / "shared", tmp_path / "snapshot")  # with the write-ahead log
    (tmp_path / "snapshot" / "catalog.sqlite-shm").unlink(missing_ok=True)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)

    for folder in ("./shared", "./snapshot"):
        listed = answer("ls", "--registry", folder)
        assert [info["name"] for info in listed] == ["acme/other", "acme/tone"]
    writer.close()
