"""After migration, a registry from before commits were introduced has a commit for every version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adaptry import open_dir
from adaptry.core.manifest import EMPTY
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora

from .downgrade import back_to_0004

NAMES = tuple(map(AdapterName.parse, ("acme/empty", "acme/tone", "acme/voice")))


def test_versions_pushed_before_there_were_commits_are_the_commits_of_main(
    folder: Path, tmp_path: Path
) -> None:
    registry = open_local(folder)
    for name in NAMES:
        registry.adapters.create(name, AdapterEdit())
    for number, name in enumerate((*NAMES[1:], *NAMES[1:], NAMES[1])):
        push(registry, open_dir(tiny_lora(tmp_path / f"lora-{number}", seed=number)), name)
    before = chains(registry)
    registry.close()
    _as_before(folder / "catalog.sqlite")

    reopened = open_local(folder)

    assert chains(reopened) == before
    assert [len(chain) for chain in before] == [1, 4, 3]
    assert before[0][0][0] == EMPTY.digest.short_id
    assert verify(reopened.catalog, reopened.blobs) == ()
    pushed = push(reopened, open_dir(tiny_lora(tmp_path / "next", seed=9)), NAMES[1])
    assert reopened.commits.get(NAMES[1]).id == pushed.version.digest.short_id
    assert reopened.commits.get(NAMES[1]).parent == before[1][0][0]
    reopened.close()


def chains(registry: LocalRegistry) -> list[list[tuple[object, ...]]]:
    """The commits that each adapter's main shows."""
    return [
        [
            (item.id, item.parent, item.number, item.carries, item.author, item.at, item.title)
            for item in registry.commits.list(name).items
        ]
        for name in NAMES
    ]


def _as_before(path: Path) -> None:
    """Restores the catalog to the previous schema."""
    database = sqlite3.connect(path)
    with database:
        back_to_0004(database)
        database.execute("DROP TABLE marks")
        database.execute("DROP TABLE commits")
        database.execute("DROP INDEX ix_adapters_moved_to")
        database.execute("ALTER TABLE adapters DROP COLUMN moved_to")
        database.execute("DELETE FROM revisions WHERE digest NOT IN (SELECT digest FROM versions)")
        database.execute("UPDATE alembic_version SET version_num = '0003'")
    database.close()
