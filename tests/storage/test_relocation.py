"""A registry moved from SQLite to PostgreSQL is unchanged; an unfinished move has no effect."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import Conflict, NotFound, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.storage.maintenance.move_to_postgres import move_catalog
from adaptry.storage.tokens import create_token, identify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_base, tiny_lora

TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")


@pytest.fixture
def secret(folder: Path, tmp_path: Path) -> str:
    """Fills the registry in `folder` with some of everything; returns one of its tokens."""
    registry = open_local(folder)
    base_registry.register_base(registry, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    for seed in (1, 2, 3):
        lora = open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed))
        push(registry, lora, TONE, options=PushOptions(metrics={"accuracy": seed / 7}))
    registry.adapters.create(VOICE, AdapterEdit(description="Ünïcode, 'quotes' and 日本", tags=("a", "b")))
    first = registry.versions.get(Ref.parse("acme/tone@1")).digest
    registry.aliases.move(TONE, "prod", first, None)
    registry.commits.create_branch(TONE, "next")
    registry.adapters.delete(VOICE)
    secret = create_token(registry.catalog, "ada", "writer", ("acme",))
    registry.close()
    return secret


def shown(registry: LocalRegistry) -> list[object]:
    """The parts of the registry that users see."""
    return [
        registry.adapters.list(None, None, 10),
        registry.versions.list(TONE),
        registry.aliases.list(TONE),
        registry.commits.references(TONE),
        registry.commits.list(TONE),
        registry.adapters.history(TONE),
        registry.bases.list(),
        registry.versions.search("base:org/tiny metric.accuracy>0.2", None, 10),
        [registry.versions.detail(Ref.parse(f"acme/tone@{number}")) for number in (1, 2, 3)],
    ]


def test_all_data_is_unchanged_and_work_continues(
    postgres: PostgresServer, folder: Path, secret: str, tmp_path: Path
) -> None:
    before = open_local(folder)
    seen = shown(before)
    before.close()

    moved = move_catalog(folder, postgres.url(postgres.create_empty()))

    assert moved.problems == ()
    assert moved.rows["versions"] == 3
    registry = open_local(folder)
    assert shown(registry) == seen
    assert verify(registry.catalog, registry.blobs) == ()
    assert identify(registry.catalog, secret).name == "ada"
    pushed = push(registry, open_dir(tiny_lora(tmp_path / "next", seed=9)), TONE)
    assert pushed.version.number == 4
    events = registry.adapters.history(TONE).items
    assert events[0].seq > events[1].seq
    registry.close()


def test_keys_of_deleted_rows_are_not_reused(postgres: PostgresServer, folder: Path, secret: str) -> None:
    with sqlite3.connect(folder / "catalog.sqlite") as database:
        database.execute("UPDATE sqlite_sequence SET seq = 4321 WHERE name = 'events'")
    database.close()
    move_catalog(folder, postgres.url(postgres.create_empty()))
    registry = open_local(folder)
    registry.commits.create_tag(TONE, "t1")
    assert registry.adapters.history(TONE).items[0].seq == 4322
    registry.close()


def test_the_old_catalog_is_read_only_for_processes_that_have_it_open(
    postgres: PostgresServer, folder: Path, secret: str
) -> None:
    late = open_local(folder)
    move_catalog(folder, postgres.url(postgres.create_empty()))
    with pytest.raises(Unavailable, match="has moved to postgresql://"):
        late.commits.create_tag(TONE, "t1")
    assert late.versions.list(TONE).items
    late.close()


def test_a_database_with_a_catalog_and_the_registry_are_unchanged(
    postgres: PostgresServer, folder: Path, secret: str, tmp_path: Path
) -> None:
    url = postgres.database()
    other = open_local(tmp_path / "other", catalog=url)
    other.adapters.create(VOICE, AdapterEdit())
    other.close()
    with pytest.raises(Conflict, match="use an empty database"):
        move_catalog(folder, url)
    registry = open_local(folder)
    registry.commits.create_tag(TONE, "t1")
    assert not (folder / "catalog.url").exists()
    registry.close()


def test_a_move_that_is_cut_short_changes_nothing(
    postgres: PostgresServer, folder: Path, secret: str
) -> None:
    name = postgres.create_migrated()
    postgres.execute("ALTER TABLE tokens ADD CONSTRAINT never CHECK (name <> 'ada')", name)
    with pytest.raises(Exception, match="never"):
        move_catalog(folder, postgres.url(name))
    assert postgres.execute("SELECT count(*) FROM versions", name) == [(0,)]
    registry = open_local(folder)
    registry.commits.create_tag(TONE, "t1")
    registry.close()


def test_a_move_that_was_cut_short_at_its_last_step_is_finished_by_another(
    postgres: PostgresServer, folder: Path, secret: str
) -> None:
    before = open_local(folder)
    seen = shown(before)
    before.close()
    url = postgres.url(postgres.create_empty())
    rows = move_catalog(folder, url).rows
    (folder / "catalog.url").unlink()  # the file that the last step writes
    halfway = open_local(folder)
    with pytest.raises(Unavailable, match="has moved to"):
        halfway.commits.create_tag(TONE, "t1")
    halfway.close()

    with pytest.raises(Conflict, match="to finish the move"):
        move_catalog(folder, postgres.database())
    assert move_catalog(folder, url).rows == rows

    registry = open_local(folder)
    assert shown(registry) == seen
    registry.commits.create_tag(TONE, "t1")
    registry.close()


def test_missing_files_are_reported(postgres: PostgresServer, folder: Path, secret: str) -> None:
    registry = open_local(folder)
    weights = next(
        entry.sha256
        for entry in registry.versions.detail(Ref.parse("acme/tone@1")).manifest.files
        if entry.path.endswith(".safetensors")
    )
    registry.blobs.delete(weights)
    registry.close()
    problems = move_catalog(folder, postgres.url(postgres.create_empty())).problems
    assert [problem.reason for problem in problems] == [
        "its bytes are lost; push it again or restore it from a copy with `adaptry repair --from`"
    ]


def test_a_folder_without_a_registry_and_one_that_was_moved_are_refused(
    postgres: PostgresServer, folder: Path, secret: str, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="no registry in"):
        move_catalog(tmp_path / "nowhere", postgres.url(postgres.create_empty()))
    move_catalog(folder, postgres.url(postgres.create_empty()))
    with pytest.raises(Conflict, match="already"):
        move_catalog(folder, postgres.url(postgres.create_empty()))
