"""A catalog on PostgreSQL: migrated, durable, with writers in turn, in any locale of the database."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Invalid, ProtocolMismatch, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import VersionInfo
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import Row
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora


@pytest.fixture
def name(postgres: PostgresServer) -> str:
    """A database with an empty catalog."""
    return postgres.create_migrated()


@pytest.fixture
def catalog(postgres: PostgresServer, name: str) -> Iterator[Catalog]:
    catalog = Catalog(postgres.url(name), busy_timeout=10)
    yield catalog
    catalog.close()


def test_the_migrations_create_the_tables_of_the_code(postgres: PostgresServer, name: str) -> None:
    engine = create_engine(postgres.url(name).replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
    engine.dispose()


def test_concurrent_openings_of_a_new_catalog_all_succeed(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.create_empty())
    with ThreadPoolExecutor(4) as pool:
        for catalog in pool.map(lambda _: Catalog(url), range(4)):
            catalog.close()


def test_an_administrator_sees_the_owner_of_a_connection(
    postgres: PostgresServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> list[tuple[object, ...]]:
        return postgres.execute(
            f"SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = '{name}'"
        )

    Catalog(postgres.url(name)).close()
    with contextlib.closing(Catalog(postgres.url(name))):
        assert shown() == [("adaptry",)]
    monkeypatch.setenv("PGAPPNAME", "api-1")
    with contextlib.closing(Catalog(postgres.url(name))):
        assert ("api-1",) in shown()


def test_a_schema_from_the_future_is_refused_with_the_remedy(postgres: PostgresServer, name: str) -> None:
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", name)
    with pytest.raises(ProtocolMismatch, match="upgrade adaptry"):
        Catalog(postgres.url(name))


@pytest.mark.parametrize("place", ["database", "role"])
def test_a_database_without_durable_commits_is_refused(
    postgres: PostgresServer, name: str, place: str
) -> None:
    if place == "role":
        postgres.execute("DROP ROLE IF EXISTS careless")
        postgres.execute("CREATE ROLE careless SUPERUSER LOGIN")
    target = f"DATABASE {name}" if place == "database" else "ROLE careless"
    postgres.execute(f"ALTER {target} SET synchronous_commit = off")
    url = postgres.url(name)
    with pytest.raises(Unavailable, match="synchronous_commit is off"):
        Catalog(url if place == "database" else url.replace("postgres@", "careless@"))


def test_a_database_in_another_encoding_is_refused(postgres: PostgresServer) -> None:
    name = postgres.create_empty("ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(Unavailable, match="server_encoding is LATIN1"):
        Catalog(postgres.url(name))


def test_an_unreachable_server_is_reported_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot reach the database") as raised:
        Catalog(f"postgresql://ada:s3cret@/registry?host={tmp_path}")
    assert "s3cret" not in str(raised.value)


def test_a_misspelt_option_of_the_address_is_reported(postgres: PostgresServer) -> None:
    with pytest.raises(Invalid, match='invalid connection option "sslmod"'):
        Catalog(f"{postgres.url('postgres')}&sslmod=verify-full")


def test_a_missing_database_is_reported(postgres: PostgresServer) -> None:
    with pytest.raises(Unavailable, match='database "nowhere" does not exist'):
        Catalog(postgres.url("nowhere"))


def test_the_error_of_an_unreachable_database_lists_what_to_check(postgres: PostgresServer) -> None:
    with pytest.raises(Unavailable, match="name, user and password are right") as raised:
        Catalog(postgres.url("nowhere"))
    assert "postgresql://" in str(raised.value)


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE versions (x int)",
        (
            "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES"
            " ('1a2b3c')"
        ),
        "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('0003')",
    ],
)
def test_a_database_of_another_program_is_unchanged(postgres: PostgresServer, made: str) -> None:
    name = postgres.create_empty()
    for statement in made.split("; "):
        postgres.execute(statement, name)
    before = postgres.execute("SELECT relname FROM pg_class WHERE relkind = 'r' ORDER BY 1", name)
    with pytest.raises(Conflict, match="its own database"):
        Catalog(postgres.url(name))
    assert postgres.execute("SELECT relname FROM pg_class WHERE relkind = 'r' ORDER BY 1", name) == before


def test_a_role_without_rights_gets_an_error_without_sql(postgres: PostgresServer, name: str) -> None:
    Catalog(postgres.url(name)).close()
    postgres.execute("DROP ROLE IF EXISTS stranger")
    postgres.execute("CREATE ROLE stranger LOGIN")
    with pytest.raises(Unavailable, match="refuses this to its user: permission denied") as raised:
        Catalog(postgres.url(name).replace("postgres@", "stranger@"))
    assert "SELECT" not in str(raised.value)


def test_a_writer_waits_for_another_process_and_then_raises_a_clear_error(
    postgres: PostgresServer, name: str
) -> None:
    patient, other = Catalog(postgres.url(name), busy_timeout=0.05), Catalog(postgres.url(name))
    with other.write(), pytest.raises(Unavailable, match="busy with another writer"), patient.write():
        pass
    with patient.write(), other.read():
        pass
    patient.close()
    other.close()


def test_a_writer_waits_for_another_thread_and_then_raises_a_clear_error(
    postgres: PostgresServer, name: str
) -> None:
    catalog = Catalog(postgres.url(name), busy_timeout=0.05)
    with catalog.write(), pytest.raises(Unavailable, match="busy with another writer"), catalog.write():
        pass
    catalog.close()


def test_concurrent_writers_lose_no_update(postgres: PostgresServer, name: str) -> None:
    """Rows that a writer has read do not change until it commits; otherwise some of these writers would count
    the same number twice.
    """
    catalogs = [Catalog(postgres.url(name)) for _ in range(3)]
    postgres.execute("CREATE TABLE counts (value integer)", name)
    postgres.execute("INSERT INTO counts VALUES (0)", name)

    def count(at: int) -> None:
        with catalogs[at % 3].write() as tx:
            seen = tx.connection().exec_driver_sql("SELECT value FROM counts").scalar_one()
            tx.connection().exec_driver_sql(f"UPDATE counts SET value = {seen + 1}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(count, range(60)))
    assert postgres.execute("SELECT value FROM counts", name) == [(60,)]
    for catalog in catalogs:
        catalog.close()


def test_a_reader_sees_a_snapshot_and_cannot_write(catalog: Catalog) -> None:
    asked = "SELECT count(*) FROM namespaces"
    with catalog.read() as tx:
        before = tx.connection().exec_driver_sql(asked).scalar()
        with catalog.write() as writing:
            writing.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('acme')")
        assert tx.connection().exec_driver_sql(asked).scalar() == before == 0
    with pytest.raises(Unavailable, match="may not be written to"), catalog.read() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces VALUES ('evil')")
    with catalog.read() as tx:
        assert tx.connection().exec_driver_sql(asked).scalar() == 1


def test_a_transaction_that_raises_changes_nothing(catalog: Catalog) -> None:
    with pytest.raises(RuntimeError), catalog.write() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('acme')")
        raise RuntimeError("half-way")
    with catalog.read() as tx:
        assert tx.connection().exec_driver_sql("SELECT count(*) FROM namespaces").scalar() == 0


def test_a_connection_that_the_server_ended_is_replaced(
    postgres: PostgresServer, name: str, catalog: Catalog
) -> None:
    with catalog.write() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('acme')")
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with catalog.read() as tx:
        assert tx.connection().exec_driver_sql("SELECT name FROM namespaces").scalar() == "acme"


def test_a_writer_that_loses_its_connection_changes_and_blocks_nothing(
    postgres: PostgresServer, name: str, catalog: Catalog
) -> None:
    with pytest.raises(Unavailable, match=r"cannot (use|reach) the database"), catalog.write() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces (name) VALUES ('acme')")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with catalog.write() as tx:
        assert tx.connection().exec_driver_sql("SELECT count(*) FROM namespaces").scalar() == 0


def test_text_that_no_column_can_hold_is_invalid(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match=r"U\+0000"), catalog.write() as tx:
        tx.connection().exec_driver_sql("INSERT INTO namespaces VALUES (%s)", ("a\0b",))


def test_names_are_sorted_by_bytes_in_a_database_of_any_locale(
    postgres: PostgresServer, name: str, tmp_path: Path
) -> None:
    registry = LocalRegistry(RegistryContext(Catalog(postgres.url(name)), MemoryBlobs()))
    lora = open_dir(tiny_lora(tmp_path / "lora"))
    names = ["acme/Zeta", "acme/alpha", "acme/b-c", "acme/bA", "acme/b_d"]
    for adapter in names:
        push(registry, lora, adapter)
    assert [str(info.name) for info in registry.adapters.list(None, None, 10).items] == sorted(names)
    ((language,),) = postgres.execute(f"SELECT daticulocale FROM pg_database WHERE datname = '{name}'")
    assert language == "en-US"
    assert [str(info.name) for info in registry.versions.search("name:acme/b*", None, 10).items] == names[
        :1:-1
    ]
    assert verify(registry.catalog, registry.blobs) == ()
    registry.close()


def test_verify_finds_a_column_with_a_locale_collation(
    postgres: PostgresServer, name: str, catalog: Catalog
) -> None:
    postgres.execute('ALTER TABLE terms ALTER COLUMN text TYPE text COLLATE "default"', name)
    problems = verify(catalog, MemoryBlobs())
    assert [problem.reason for problem in problems] == [
        'terms.text is not compared byte by byte (COLLATE "C")'
    ]


def test_an_error_of_the_driver_due_to_our_bug_is_not_translated(catalog: Catalog) -> None:
    with pytest.raises(DBAPIError), catalog.read() as tx:
        tx.connection().exec_driver_sql("SELECT nonsense")


def test_acknowledged_pushes_survive_a_crash_of_the_server(
    postgres: PostgresServer, folder: Path, tmp_path: Path
) -> None:
    registry = open_local(folder, catalog=postgres.database())
    loras = [open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)) for seed in range(8)]
    acknowledged: list[VersionInfo] = []
    halfway = threading.Event()

    def push_all() -> None:
        for lora in loras:
            with contextlib.suppress(Unavailable):
                acknowledged.append(push(registry, lora, "acme/tone").version)
            if len(acknowledged) == 2:
                halfway.set()

    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push_all)
        assert halfway.wait(60)
        postgres.crash()
        pushing.result()

    assert verify(registry.catalog, registry.blobs) == ()
    stored = {
        info.digest: info.number for info in registry.versions.list(AdapterName.parse("acme/tone")).items
    }
    assert {info.digest: info.number for info in acknowledged}.items() <= stored.items()
    numbers = [push(registry, lora, "acme/tone").version.number for lora in loras]
    assert sorted(numbers) == list(range(1, 9))
    registry.close()
