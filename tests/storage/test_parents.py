"""After migration, a registry from before parents were stored has the parents of its versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adaptry import open_dir
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora

from .downgrade import back_to_0004


def test_parents_of_older_versions_are_searchable(folder: Path, tmp_path: Path) -> None:
    registry = open_local(folder)
    parents = [push(registry, open_dir(tiny_lora(tmp_path / f"p{n}", seed=n)), "acme/parts") for n in (1, 2)]
    digests = tuple(pushed.version.digest for pushed in parents)
    push(registry, open_dir(tiny_lora(tmp_path / "both", seed=3)), "acme/both", parents=digests)
    push(registry, open_dir(tiny_lora(tmp_path / "more", seed=4)), "acme/both", parents=digests[:1])
    registry.close()
    _as_before(folder / "catalog.sqlite")

    reopened = open_local(folder)

    found = [
        [item.number for item in reopened.versions.search(f"parent:{digest}").items] for digest in digests
    ]
    assert found == [[2, 1], [1]]
    reopened.close()


def _as_before(path: Path) -> None:
    """Restores the catalog to the previous schema: no version has a parent among its terms."""
    database = sqlite3.connect(path)
    with database:
        parents = "SELECT id FROM terms WHERE field = 'parent'"
        database.execute(f"DELETE FROM postings WHERE term_id IN ({parents})")
        database.execute("DELETE FROM terms WHERE field = 'parent'")
        back_to_0004(database)
        database.execute("DROP TABLE marks")
        database.execute("DROP TABLE commits")
        database.execute("DROP INDEX ix_adapters_moved_to")
        database.execute("ALTER TABLE adapters DROP COLUMN moved_to")
        database.execute("UPDATE alembic_version SET version_num = '0002'")
    database.close()
