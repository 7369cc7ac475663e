"""Writers on PostgreSQL: prepared changes, which are sent together, and sessions see each other's changes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.storage.push_process import push_in_one_batch

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Invalid, TooLarge
from adaptry.core.refs import AdapterName
from adaptry.registry.records import PushResult
from adaptry.storage.catalog import adapter_statements
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.postgres_reader import PostgresReader
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import count_changed, insert_new, insert_values
from adaptry.storage.catalog.rows import NamespaceRow
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import until


@pytest.fixture
def catalog(postgres: PostgresServer) -> Iterator[Catalog]:
    catalog = Catalog(postgres.url(postgres.create_migrated()))
    yield catalog
    catalog.close()


def add(tx: Transaction, *names: str) -> None:
    for name in names:
        insert_new(tx, "namespaces", {"name": name, "folded": name})


def adds(*names: str) -> Callable[[Transaction], None]:
    return lambda tx: add(tx, *names)


def stored(tx: Transaction) -> list[str]:
    return list(tx.connection().execute(text("SELECT name FROM namespaces ORDER BY name")).scalars())


def committed(catalog: Catalog) -> list[str]:
    with catalog.read() as tx:
        return stored(tx)


def test_prepared_changes_and_a_session_see_each_other(catalog: Catalog) -> None:
    with catalog.write() as tx:
        add(tx, "a", "b")
        assert stored(tx) == ["a", "b"]
        tx.add(NamespaceRow(name="c", folded="c"))
        add(tx, "d")
        assert stored(tx) == ["a", "b", "c", "d"]
        insert_values(tx, "namespaces", [{"name": name, "folded": name} for name in "ef"])
    assert committed(catalog) == [*"abcdef"]


def test_nothing_is_changed_if_a_change_that_was_not_waited_for_fails(catalog: Catalog) -> None:
    with catalog.write() as tx:
        add(tx, "a")
    with pytest.raises(Exception, match="duplicate key"), catalog.write() as tx:
        add(tx, "b", "a")
    with pytest.raises(Exception, match="duplicate key"), catalog.write() as tx:
        add(tx, "b", "a")
        stored(tx)
    with pytest.raises(Invalid, match=r"U\+0000"), catalog.write() as tx:
        add(tx, "b", "\0")
    with catalog.write() as tx:
        add(tx, "c")
    assert committed(catalog) == ["a", "c"]


def test_values_of_all_kinds_are_stored_as_given(catalog: Catalog) -> None:
    awkward = 'a "quoted" \\ text, {with} commas, NULL and ü'
    rows = [
        {"name": "x", "folded": None},
        {"name": awkward, "folded": "NULL"},
        {"name": "", "folded": "{}"},
    ]
    with catalog.write() as tx:
        insert_values(tx, "namespaces", rows)
        insert_new(tx, "revisions", {"digest": "f" * 64, "manifest": b'\0\\"\xff'})
    with catalog.read() as tx:
        found = tx.connection().execute(text("SELECT name, folded FROM namespaces")).all()
        (manifest,) = tx.connection().execute(text("SELECT manifest FROM revisions")).scalars()
    assert sorted(map(repr, found)) == sorted(repr((row["name"], row["folded"])) for row in rows)
    assert manifest == b'\0\\"\xff'


def test_an_update_without_rows_counts_no_changes(catalog: Catalog) -> None:
    with catalog.write() as tx:
        assert count_changed(tx, adapter_statements.more_downloads, {"key": 1, "count": 1}) == 0
        assert run_select(tx, adapter_statements.next_number, {"key": 1}) == []


def test_several_transactions_are_committed_together_without_those_that_fail(catalog: Catalog) -> None:
    def refused(tx: Transaction) -> None:
        add(tx, "b")
        tx.add(NamespaceRow(name="c", folded="c"))
        tx.flush()
        raise Conflict("taken")

    def sees_nothing_committed(tx: Transaction) -> None:
        assert committed(catalog) == []
        add(tx, "d", "e")

    outcomes = catalog.write_each([adds("a"), refused, sees_nothing_committed])
    assert [type(one) for one in outcomes] == [type(None), Conflict, type(None)]
    assert committed(catalog) == ["a", "d", "e"]
    assert isinstance(catalog.write_each([refused])[0], Conflict)
    assert committed(catalog) == ["a", "d", "e"]


def test_a_transaction_that_the_database_refuses_does_not_fail_those_committed_with_it(
    catalog: Catalog,
) -> None:
    def refused_by_a_session(tx: Transaction) -> None:
        add(tx, "a")
        stored(tx)

    outcomes = catalog.write_each([adds("a"), adds("a"), refused_by_a_session, adds("b")])
    assert outcomes[0] is outcomes[3] is None
    assert all("duplicate key" in str(error) for error in outcomes[1:3])
    assert committed(catalog) == ["a", "b"]


def test_a_push_with_too_long_a_base_name_does_not_fail_its_neighbours(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    with open_local(tmp_path / "registry", catalog=postgres.url(postgres.create_migrated())) as registry:
        folders = [tiny_lora(tmp_path / str(seed), seed=seed) for seed in range(3)]
        config = folders[1] / "adapter_config.json"
        fields = json.loads(config.read_text())
        config.write_text(json.dumps({**fields, "base_model_name_or_path": secrets.token_urlsafe(4000)}))
        outcomes = push_in_one_batch(registry, map(open_dir, folders), AdapterName.parse("acme/tone"))
        assert verify(registry.catalog, registry.blobs) == ()
    assert [type(one) for one in outcomes] == [PushResult, TooLarge, PushResult]


def test_pushes_in_a_batch_share_their_read_transactions(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, begin, write_each = list[str](), PostgresReader.begin, Catalog.write_each
    with closing(open_local(tmp_path / "data", catalog=postgres.url(postgres.create_migrated()))) as registry:
        push_in_one_batch(registry, [open_dir(tiny_lora(tmp_path / "warm"))], AdapterName.parse("acme/warm"))
        monkeypatch.setattr(
            PostgresReader,
            "begin",
            lambda *given, **options: (steps.append("read"), begin(*given, **options)),
        )
        monkeypatch.setattr(
            Catalog, "write_each", lambda *given: (steps.append("write"), write_each(*given))[1]
        )
        made = [open_dir(tiny_lora(tmp_path / str(seed), seed=seed)) for seed in range(4)]
        outcomes = push_in_one_batch(registry, made, AdapterName.parse("acme/tone"))
    assert [type(one) for one in outcomes] == [PushResult] * 4
    assert steps[: steps.index("write")] == ["read"] * 2  # of all pushes, before and after the inspections


def test_a_catalog_that_is_closed_during_a_write_leaves_no_connection(postgres: PostgresServer) -> None:
    name = postgres.create_migrated()
    catalog = Catalog(postgres.url(name))
    with catalog.write() as tx:
        add(tx, "a")
        catalog.close()
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    until(lambda: postgres.execute(query, name), [(0,)].__eq__)
