"""`adaptry migrate`, and the commands on a registry whose rows are in PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptry.storage.catalog.migrate import KNOWN
from adaptry.testing.postgres import PostgresServer

pytestmark = pytest.mark.usefixtures("out")


def test_a_registry_is_moved_and_the_same_commands_find_it(
    run, answer, postgres: PostgresServer, tmp_path: Path
) -> None:
    here = ("--registry", "./registry")
    pushed = run(*here, "push", "./out", "acme/tone").stdout
    before = answer(*here, "show", "acme/tone")

    moved = run("migrate", "--from", "sqlite:./registry", "--to", postgres.url(postgres.create_empty()))

    assert "1 name, 1 version" in moved.stdout
    assert answer(*here, "show", "acme/tone") == before
    assert run(*here, "push", "./out", "acme/tone").stdout == pushed
    examined = run(*here, "doctor").stdout
    assert "(catalog in postgresql://" in examined
    assert "SQLite" not in examined
    assert run("token", "create", "ci", "--namespace", "acme", "--data", "./registry").stdout.startswith(
        "adr_"
    )


def test_the_answer_as_json_counts_the_rows_of_each_table(run, postgres: PostgresServer) -> None:
    run("--registry", "./registry", "push", "./out", "acme/tone")
    url = postgres.url(postgres.create_empty())
    answer = json.loads(run("migrate", "--from", "sqlite:./registry", "--to", url, "--json").stdout)
    assert answer["problems"] == []
    assert answer["rows"]["versions"] == 1


def test_a_new_registry_begins_in_the_database_that_the_environment_names(
    run, answer, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTRY_CATALOG", postgres.url(postgres.create_empty()))
    run("--registry", "./registry", "push", "./out", "acme/tone")
    assert not (tmp_path / "registry" / "catalog.sqlite").exists()
    monkeypatch.delenv("ADAPTRY_CATALOG")
    assert answer("--registry", "./registry", "ls")[0]["name"] == "acme/tone"


def test_an_impossible_migration_is_reported(run, postgres: PostgresServer, tmp_path: Path) -> None:
    to = ("--to", postgres.url(postgres.create_empty()))
    assert "sqlite:DIR" in run("migrate", "--from", "./registry", *to, code=2).stderr
    assert "no registry in" in run("migrate", "--from", "sqlite:./registry", *to, code=3).stderr
    run("--registry", "./registry", "push", "./out", "acme/tone")
    away = ("--to", f"postgresql://ada:s3cret@/nowhere?host={tmp_path}")
    told = run("migrate", "--from", "sqlite:./registry", *away, code=6).stderr
    assert "cannot reach the database" in told
    assert "s3cret" not in told
    assert (
        "postgresql://" in run("migrate", "--from", "sqlite:./registry", "--to", "mysql://x/y", code=2).stderr
    )


def test_migrate_alone_creates_or_updates_the_configured_catalog(
    run, answer, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text(postgres.url(postgres.create_empty()))
    monkeypatch.setenv("ADAPTRY_CATALOG_FILE", str(tmp_path / "url"))
    first, again = answer("migrate"), answer("migrate")
    assert first == again
    assert first["schema"] == KNOWN[-1]
    assert answer("ls") == []


def test_from_without_to_is_a_usage_error(run) -> None:
    assert "pass --from and --to together" in run("migrate", "--from", "sqlite:./registry", code=2).stderr
