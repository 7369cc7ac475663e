"""Opening a catalog: migrated, durable and shared; and databases that are refused."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from adaptry.core.errors import CorruptData, ProtocolMismatch, Unavailable
from adaptry.storage.catalog import sqlite_schema
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.migrate import KNOWN, schema_of, upgrade
from adaptry.storage.catalog.rows import Row

REMEDY = "python tests/storage/write_sqlite_schema.py"


def rows_of(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """The rows of every table that has any; for an epoch, only values that are not random."""
    tables = [*sorted(inspect(connection).get_table_names())]
    found = {table: connection.exec_driver_sql(f'SELECT * FROM "{table}"').all() for table in tables}
    rows: dict[str, list[tuple[object, ...]]] = {
        table: [tuple(row) for row in each] for table, each in found.items() if each
    }
    rows["epochs"] = [(row.number, len(row.id), len(row.secret)) for row in found["epochs"]]
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def test_the_migrations_create_the_tables_of_the_models(path: Path) -> None:
    Catalog.open(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
    engine.dispose()


def test_the_script_for_a_new_database_equals_the_migrations(path: Path) -> None:
    Catalog.open(path).close()
    migrated, scripted = create_engine("sqlite://"), create_engine(f"sqlite:///{path}")
    with migrated.begin() as connection:
        upgrade(connection)
        expected, first = sqlite_schema.script_of(connection), rows_of(connection)
    with scripted.connect() as connection:
        assert sqlite_schema.script_of(connection) == expected, f"run {REMEDY}"
        assert rows_of(connection) == first
    for engine in (migrated, scripted):
        engine.dispose()


def test_a_new_database_beside_tables_of_another_program_is_migrated(path: Path) -> None:
    change(path, "CREATE TABLE counts (value integer)")
    Catalog.open(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert schema_of(connection) == KNOWN[-1]
        assert rows_of(connection)["epochs"] == [(1, 16, 64)]
    engine.dispose()


def test_every_migration_is_known_in_its_order() -> None:
    config = Config()
    config.set_main_option("script_location", "adaptry.storage.catalog:migrations")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == KNOWN


def test_concurrent_openings_of_a_new_sqlite_catalog_all_succeed(path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        for catalog in pool.map(lambda _: Catalog.open(path), range(6)):
            catalog.close()


def test_a_schema_from_the_future_is_refused_with_the_remedy(path: Path) -> None:
    Catalog.open(path).close()
    change(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ProtocolMismatch, match="upgrade adaptry"):
        Catalog.open(path)


def test_a_file_that_is_not_a_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all, only text" * 100)
    with pytest.raises(CorruptData, match="not a sound SQLite database"):
        Catalog.open(path)


def test_a_path_that_is_not_a_folder_is_refused(path: Path) -> None:
    path.write_text("a file")
    with pytest.raises(Unavailable, match="choose another folder"):
        Catalog.open(path / "catalog.sqlite")


def test_commits_survive_a_power_cut(path: Path) -> None:
    catalog = Catalog.open(path)
    with catalog.read() as tx:
        found = {
            name: tx.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    catalog.close()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_note_is_not_flushed_until_the_next_write(path: Path) -> None:
    catalog = Catalog.open(path)
    found = []
    for begin in (catalog.write, catalog.write_nondurable, catalog.write):
        with begin() as tx:
            found.append(tx.connection().exec_driver_sql("PRAGMA synchronous").scalar())
    catalog.close()
    assert found == [2, 1, 2]


def test_a_failed_note_leaves_nothing_and_a_finished_one_is_stored(path: Path) -> None:
    catalog = Catalog.open(path)
    with pytest.raises(ValueError, match="no"), catalog.write_nondurable() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('lost')")
        raise ValueError("no")
    with catalog.write_nondurable() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('acme')")
    catalog.close()
    again = Catalog.open(path)
    with again.read() as tx:
        assert tx.connection().exec_driver_sql("SELECT name FROM namespaces").all() == [("acme",)]
    again.close()


def test_a_writer_waits_for_another_and_then_raises_an_error(path: Path) -> None:
    patient, other = Catalog.open(path, busy_timeout=0.05), Catalog.open(path)
    with other.write(), pytest.raises(Unavailable, match="busy with another writer"), patient.write():
        pass
    with patient.write(), other.read():
        pass
    patient.close()
    other.close()


def test_writers_of_one_process_all_get_their_turn(path: Path) -> None:
    """SQLite itself would let some of so many writers wait for seconds."""
    catalog = Catalog.open(path, busy_timeout=5.0)
    change(path, "CREATE TABLE counts (value integer)")
    change(path, "INSERT INTO counts VALUES (0)")

    def count(times: int) -> None:
        for _ in range(times):
            with catalog.write() as tx:
                seen = tx.connection().exec_driver_sql("SELECT value FROM counts").scalar_one()
                tx.connection().exec_driver_sql(f"UPDATE counts SET value = {seen + 1}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, [40] * 8))
    with catalog.read() as tx:
        assert tx.connection().exec_driver_sql("SELECT value FROM counts").scalar() == 320
    catalog.close()


def test_a_writer_that_waits_too_long_in_the_same_process_gets_an_error(path: Path) -> None:
    catalog = Catalog.open(path, busy_timeout=0.05)
    with (
        catalog.write(),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(Unavailable, match="busy with another writer"),
    ):
        pool.submit(_write, catalog).result()
    catalog.close()


def test_a_transaction_that_raises_changes_nothing(path: Path) -> None:
    catalog = Catalog.open(path)
    with pytest.raises(RuntimeError), catalog.write() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('acme')")
        raise RuntimeError("half-way")
    with catalog.read() as tx:
        assert tx.connection().exec_driver_sql("SELECT count(*) FROM namespaces").scalar() == 0
    catalog.close()


def _write(catalog: Catalog) -> None:
    with catalog.write():
        pass


def change(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute(statement)
    database.close()
