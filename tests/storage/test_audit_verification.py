"""Detected alterations of an audit log: by SQL in the registry, and in exported files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid
from adaptry.core.transparency import merkle
from adaptry.core.transparency.checkpoint import VerifierKey
from adaptry.operations.audit_verification import verify_export, verify_log, write_export
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry

from .audit_changes import TONE, fill

Alter = Callable[[str], None]


@pytest.fixture
def registry(folder: Path) -> Iterator[LocalRegistry]:
    registry = open_local(folder)
    yield registry
    registry.close()


@pytest.fixture
def alter(folder: Path) -> Alter:
    """Runs a statement in the catalog's file, as anyone with access to the file can."""

    def run(statement: str) -> None:
        with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
            assert database.execute(statement).rowcount == 1

    return run


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit_entries SET actor = 'eve' WHERE seq = 3", "entry 3 was changed after it was sealed"),
        ("UPDATE audit_entries SET detail = '{}' WHERE seq = 3", "entry 3 was changed after it was sealed"),
        ("UPDATE audit_entries SET detail = 'x' WHERE seq = 3", "entry 3 was changed after it was sealed"),
        ("UPDATE audit_entries SET outcome = 'x' WHERE seq = 3", "entry 3 was changed after it was sealed"),
        (
            "UPDATE audit_entries SET namespace = NULL WHERE seq = 3",
            "entry 3 was changed after it was sealed",
        ),
        ("DELETE FROM audit_entries WHERE seq = 3", "entry 3 is missing"),
        (
            "DELETE FROM audit_entries WHERE seq = 5",
            "the log has only 5; the entries from number 5 on are missing",
        ),
        (
            "INSERT INTO audit_entries (at, action, actor, resource, outcome, detail, seq, leaf)"
            " SELECT at, action, 'eve', resource, outcome, detail, 6, leaf FROM audit_entries WHERE seq = 3",
            "entry 6 was inserted: no checkpoint covers it",
        ),
        (
            "UPDATE audit_checkpoints SET note = replace(note, '6', '7') WHERE size = 6",
            "not signed with this",
        ),
        ("UPDATE audit_entries SET leaf = 'x' WHERE seq = 3", "entry 3 was changed after it was sealed"),
        (
            "UPDATE audit_checkpoints SET note = 'x' WHERE size = 6",
            "the newest checkpoint was changed: not a",
        ),
        (
            "UPDATE audit_checkpoints SET size = 9 WHERE size = 6",
            "the checkpoint of 6 entries was changed or",
        ),
    ],
)
def test_an_alteration_by_sql_is_found_and_named(
    registry: LocalRegistry, alter: Alter, statement: str, problem: str
) -> None:
    fill(registry, 6)
    registry.audit.checkpoint()
    alter(statement)
    problems = verify_log(registry.audit).problems
    assert any(problem in one for one in problems), problems


def test_a_removed_entry_is_the_only_problem_although_an_older_checkpoint_covers_it(
    registry: LocalRegistry, alter: Alter
) -> None:
    fill(registry, 4)
    saved = registry.audit.checkpoint().note
    registry.adapters.edit(TONE, AdapterEdit(description="new"))
    registry.audit.checkpoint()
    alter("DELETE FROM audit_entries WHERE seq = 3")
    assert verify_log(registry.audit, None, saved).problems == ("entry 3 is missing",)


def test_an_altered_checkpoint_does_not_prevent_an_export(
    registry: LocalRegistry, alter: Alter, tmp_path: Path
) -> None:
    fill(registry, 3)
    registry.audit.checkpoint()
    alter("UPDATE audit_checkpoints SET note = 'x' WHERE size = 3")
    export(registry, tmp_path / "log.jsonl")
    assert verify_export(tmp_path / "log.jsonl").entries == 4


def test_an_entry_altered_with_its_hash_is_found_by_the_next_signed_root(
    registry: LocalRegistry, alter: Alter
) -> None:
    fill(registry, 2)
    registry.audit.checkpoint()
    registry.adapters.edit(TONE, AdapterEdit(description="new"))
    registry.audit.checkpoint()
    (entry,) = registry.audit.sealed(2).items
    forged = merkle.leaf_hash(entry.model_copy(update={"actor": "eve"}).line.encode()).hex()
    alter(f"UPDATE audit_entries SET actor = 'eve', leaf = '{forged}' WHERE seq = 2")

    (problem,) = verify_log(registry.audit).problems
    assert problem.startswith("entry 2 was changed, removed or inserted: the newest checkpoint of 3 entries")


def test_a_log_rewritten_and_signed_again_differs_from_an_older_checkpoint(
    registry: LocalRegistry, folder: Path
) -> None:
    fill(registry, 4)
    saved = registry.audit.checkpoint().note
    assert saved is not None
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        database.execute("DELETE FROM audit_entries WHERE seq = 1")
        database.execute("UPDATE audit_entries SET seq = NULL, leaf = NULL")
        database.execute("DELETE FROM audit_checkpoints")
        database.execute("UPDATE audit_state SET size = 0, peaks = ''")
    registry.adapters.edit(TONE, AdapterEdit(description="one more"))

    assert verify_log(registry.audit).problems == ()
    (problem,) = verify_log(registry.audit, None, saved).problems
    assert "the older checkpoint of 4 entries has another root" in problem


def test_an_export_is_verified_by_itself_and_recorded(registry: LocalRegistry, tmp_path: Path) -> None:
    fill(registry, 3)
    saved = registry.audit.checkpoint()
    lines = export(registry, tmp_path / "log.jsonl")

    assert json.loads(lines[-2])["checkpoint"].startswith("adaptry/audit/")
    assert json.loads(lines[3])["action"] == "audit.export"
    report = verify_export(tmp_path / "log.jsonl", VerifierKey.parse(saved.key or ""), saved.note)
    assert (report.problems, report.entries, report.older) == ((), 4, 3)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda lines: [lines[0], lines[1].replace("local", "eve"), *lines[2:]],
            "entries 0 to 2 was changed",
        ),
        (lambda lines: [lines[0], *lines[2:]], "entry 1 is missing"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "was inserted after entry 1"),
        (lambda lines: [*lines[:2], *lines[4:]], "the entries from number 2 on are missing"),
        (lambda lines: [*lines[:-1], lines[-1].replace("\\n4\\n", "\\n5\\n")], "not signed with this key"),
        (lambda lines: [*lines, renumbered(lines[3], 4)], "entry 4 was inserted: no checkpoint covers it"),
        (lambda lines: [*lines[:3], renumbered(lines[3], 10**15), *lines[4:]], "was inserted: no checkpoint"),
    ],
)
def test_an_altered_export_is_found(
    registry: LocalRegistry,
    tmp_path: Path,
    change: Callable[[list[str]], list[str]],
    problem: str,
) -> None:
    fill(registry, 3)
    key = VerifierKey.parse(registry.audit.checkpoint().key or "")
    lines = export(registry, tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl").write_text("".join(line + "\n" for line in change(lines)))

    problems = verify_export(tmp_path / "log.jsonl", key).problems
    assert any(problem in one for one in problems), problems


def test_an_export_with_a_filter_cannot_be_verified_as_a_whole(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    fill(registry, 3)
    lines = export(registry, tmp_path / "log.jsonl", AuditFilter(action="adapter.*"))
    assert [json.loads(line)["action"] for line in lines] == [
        "adapter.create",
        "adapter.edit",
        "adapter.edit",
    ]
    with pytest.raises(Invalid, match="exported with a filter"):
        verify_export(tmp_path / "log.jsonl")


def renumbered(line: str, seq: int) -> str:
    return json.dumps({**json.loads(line), "seq": seq})


def export(registry: Registry, path: Path, where: AuditFilter | None = None) -> list[str]:
    lines: list[str] = []
    write_export(registry.audit, where or AuditFilter(), lines.append)
    path.write_text("".join(line + "\n" for line in lines))
    return lines
