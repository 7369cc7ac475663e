"""The audit log on the command line, in a registry's own folder."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest


@pytest.fixture
def catalog(home: Path, run) -> Path:
    """The catalog's file, of a registry with a few entries."""
    run("create", "acme/tone")
    run("edit", "acme/tone", "--description", "calm")
    run("user", "create", "ann")
    (found,) = home.rglob("catalog.sqlite")
    return found


def test_entries_are_listed_newest_first_and_filtered_by_every_option(run, answer, catalog: Path) -> None:
    assert [entry["action"] for entry in answer("audit", "ls")] == [
        "principal.create",
        "adapter.edit",
        "adapter.create",
    ]
    (edit,) = answer("audit", "ls", "--action", "adapter.edit", "--resource", "acme/tone", "--actor", "local")
    assert (edit["before"], edit["after"]) == ({"description": ""}, {"description": "calm"})
    assert answer("audit", "ls", "--denied") == []
    assert len(answer("audit", "ls", "--since", "1h", "--action", "adapter.*")) == 2
    assert answer("audit", "ls", "--until", "2026-01-01T00:00Z") == []
    shown = run("audit", "ls", "--limit", "1")
    assert "principal.create" in shown.stdout
    assert "--limit shows more" in shown.stderr


def test_a_log_is_verified_in_its_folder_and_from_a_file_with_an_older_checkpoint(
    run, answer, catalog: Path, tmp_path: Path
) -> None:
    (tmp_path / "older").write_text(run("audit", "checkpoint").stdout)
    key = answer("audit", "checkpoint")["key"]
    run("edit", "acme/tone", "--description", "calmer")
    run("audit", "export", "--to", "log.jsonl")

    for words in ((), ("--file", "log.jsonl", "--key", key)):
        said = run("audit", "verify", "--checkpoint", "older", *words).stderr
        assert said == "nothing was altered: 5 entries sealed; newest checkpoint 5; older checkpoint 3\n"
    assert "pass --key" in run("audit", "verify", "--file", "log.jsonl").stderr
    assert "exists" in run("audit", "export", "--to", "log.jsonl", code=2).stderr
    lines = run("audit", "export", "--actor", "local").stdout.splitlines()
    assert [json.loads(line)["action"] for line in lines][-2:] == ["audit.export", "audit.export"]


def test_an_altered_row_is_named_with_exit_code_1(run, catalog: Path) -> None:
    run("audit", "checkpoint")
    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("UPDATE audit_entries SET actor = 'eve' WHERE seq = 1")

    found = run("audit", "verify", code=1)
    assert found.stdout.startswith("entry 1 was changed after it was sealed")
    assert "1 problem" in found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ls", "--action", "alias.moved"), "no action 'alias.moved'"),
        (("ls", "--since", "yesterday"), "not a time: 'yesterday'"),
        (("verify", "--key", "nonsense"), "not a key of an audit log"),
    ],
)
def test_malformed_filters_are_a_usage_error(run, catalog: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run("audit", *words, code=2).stderr


def test_an_empty_log_has_no_checkpoint_and_nothing_to_verify(run, catalog: Path) -> None:
    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("DELETE FROM audit_entries")
    assert "no checkpoint yet" in run("audit", "checkpoint", code=2).stderr
    assert run("audit", "verify").stderr == "nothing was altered: 0 entries sealed\n"


def test_a_lost_key_is_replaced_and_the_log_records_it(run, answer, catalog: Path) -> None:
    old = answer("audit", "checkpoint")["key"]
    (catalog.parent / "audit-key").unlink()
    run("edit", "acme/tone", "--description", "later")
    assert answer("audit", "checkpoint")["unsealed"] == 1

    run("admin", "replace-audit-key")

    found = answer("audit", "checkpoint")
    assert (found["unsealed"], found["key"] == old) == (0, False)
    assert answer("audit", "ls", "--limit", "1")[0]["before"] == {"key": old}
    assert run("audit", "verify").stderr.startswith("nothing was altered: 5 entries")


def test_a_checkpoint_saved_before_the_key_was_replaced_is_verified_with_its_own_key(
    run, answer, catalog: Path, tmp_path: Path
) -> None:
    saved, log = tmp_path / "checkpoint.txt", tmp_path / "log.jsonl"
    run("audit", "checkpoint", "--to", str(saved))
    old = answer("audit", "checkpoint")["key"]
    (catalog.parent / "audit-key").unlink()
    run("admin", "replace-audit-key")
    new = answer("audit", "checkpoint")["key"]
    run("audit", "export", "--to", str(log))

    refused = run("audit", "verify", "--checkpoint", str(saved), code=1)
    assert "not signed with this key" in refused.stdout and "--checkpoint-key KEY" in refused.stdout
    both = ("--checkpoint", str(saved), "--key", new, "--checkpoint-key", old)
    for source in ((), ("--file", str(log))):
        assert run("audit", "verify", *source, *both).stderr.startswith("nothing was altered")
        swapped = run("audit", "verify", *source, *both[:2], "--key", old, "--checkpoint-key", new, code=1)
        assert "the newest checkpoint" in swapped.stdout or "the checkpoint of" in swapped.stdout
    said = run("audit", "verify", "--checkpoint-key", old, code=2).stderr
    assert "--checkpoint-key needs --checkpoint FILE" in said
