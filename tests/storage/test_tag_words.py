"""A registry from before words of tags were indexed finds them after its migration, on both databases."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine

from adaptry import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
BEFORE = (
    (
        "DELETE FROM postings WHERE term_id IN (SELECT id FROM terms WHERE field = 'word' AND text IN ('for',"
        " 'speech'))"
    ),
    "DELETE FROM terms WHERE field = 'word' AND text = 'speech'",
)
NARROW = (
    "ALTER TABLE events ALTER COLUMN seq TYPE integer",
    "ALTER SEQUENCE events_seq_seq AS integer",
    "ALTER TABLE metric_values ALTER COLUMN id TYPE integer",
    "ALTER SEQUENCE metric_values_id_seq AS integer",
)


def fill(url: str, tmp_path: Path) -> None:
    catalog = Catalog(url)
    registry = LocalRegistry(RegistryContext(catalog, MemoryBlobs()))
    registry.adapters.create(TONE, AdapterEdit(tags=("for-Speech",), description="tone of voice"))
    for seed in (1, 2):
        push(registry, open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)), TONE)
    catalog.close()


def migrate_again(url: str, *before: str) -> None:
    """Runs this migration again, on rows and columns from before it."""
    migration = import_module("adaptry.storage.catalog.migrations.versions.0008_tag_words")
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in before:
            connection.exec_driver_sql(statement)
        with Operations.context(MigrationContext.configure(connection)):
            migration.upgrade()
    engine.dispose()


def found(registry: LocalRegistry) -> list[list[int]]:
    """The results of searches for words of the tag and of the description."""
    return [
        [item.number for item in registry.versions.search(query).items]
        for query in ("speech", "for", "voice")
    ]


def test_in_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    fill(url, tmp_path)
    migrate_again(url, *BEFORE)
    registry = LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs()))
    assert found(registry) == [[2, 1], [2, 1], [2, 1]]
    registry.close()


def test_in_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.create_migrated()
    fill(postgres.url(name), tmp_path)
    migrate_again(postgres.url(name).replace("postgresql:", "postgresql+psycopg:"), *BEFORE, *NARROW)
    registry = LocalRegistry(RegistryContext(Catalog(postgres.url(name)), MemoryBlobs()))
    assert found(registry) == [[2, 1], [2, 1], [2, 1]]
    postgres.execute("SELECT setval('events_seq_seq', 3000000000)", name)
    registry.adapters.edit(TONE, AdapterEdit(description="numbered beyond 32 bits"))
    assert registry.events.read(2**31).items[0].seq == 3_000_000_001
    registry.close()
