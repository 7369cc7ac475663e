"""A registry that was filled before words of tags were searched finds them after it is opened, on both databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from adaptry import open_dir, push
from adaptry.blobs.memory import MemoryBlobs
from adaptry.catalog.database import Catalog
from adaptry.local import LocalRegistry
from adaptry.records import AdapterEdit
from adaptry.refs import AdapterName
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
BEFORE = (
    "DELETE FROM postings WHERE term_id IN (SELECT id FROM terms WHERE field = 'word' AND text IN ('for', 'speech'))",
    "DELETE FROM terms WHERE field = 'word' AND text = 'speech'",
    "UPDATE alembic_version SET version_num = '0005'",
)
NARROW = (
    "ALTER TABLE events ALTER COLUMN seq TYPE integer",
    "ALTER SEQUENCE events_seq_seq AS integer",
    "ALTER TABLE metric_values ALTER COLUMN id TYPE integer",
    "ALTER SEQUENCE metric_values_id_seq AS integer",
)


def fill(url: str, tmp_path: Path) -> None:
    catalog = Catalog(url)
    registry = LocalRegistry(catalog, MemoryBlobs())
    registry.create_adapter(TONE, AdapterEdit(tags=("for-Speech",), description="tone of voice"))
    for seed in (1, 2):
        push(registry, open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)), TONE)
    catalog.close()


def found(url: str) -> Iterator[list[int]]:
    """What words of the tag, and of the description, find."""
    catalog = Catalog(url)
    registry = LocalRegistry(catalog, MemoryBlobs())
    for query in ("speech", "for", "voice"):
        yield [item.number for item in registry.search(query).items]
    catalog.close()


def test_in_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    url = f"sqlite:///{path}"
    fill(url, tmp_path)
    database = sqlite3.connect(path)
    with database:
        for statement in BEFORE:
            database.execute(statement)
    database.close()
    assert list(found(url)) == [[2, 1], [2, 1], [2, 1]]


def test_in_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.migrated()
    fill(postgres.url(name), tmp_path)
    for statement in (*BEFORE, *NARROW):
        postgres.execute(statement, name)
    assert list(found(postgres.url(name))) == [[2, 1], [2, 1], [2, 1]]
    postgres.execute("SELECT setval('events_seq_seq', 3000000000)", name)
    registry = LocalRegistry(Catalog(postgres.url(name)), MemoryBlobs())
    registry.edit_adapter(TONE, AdapterEdit(description="numbered beyond 32 bits"))
    assert registry.events(2**31).items[0].seq == 3_000_000_001
    registry.close()
