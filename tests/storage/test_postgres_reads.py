"""Prepared reads on PostgreSQL return what other reads return, and are as current."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Integer, String, bindparam, func, literal, select
from tests.storage.test_prepared import everything

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Invalid
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions, StateChange
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import adapters
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
PROD = Ref.parse("acme/tone@prod")
_DIVISION = select((literal(1) / bindparam("by", type_=Integer)).label("result"))

_PLANNING = select(func.current_setting("plan_cache_mode", type_=String).label("mode"))


@pytest.fixture
def registry(on_postgres: LocalRegistry, tmp_path: Path) -> LocalRegistry:
    """Two versions: one with a metric and an alias, one that was deprecated."""
    registry = on_postgres
    options = PushOptions(alias="prod", metrics={"accuracy": 0.5, "loss": 1})
    push(registry, open_dir(tiny_lora(tmp_path / "one")), TONE, options=options)
    second = push(registry, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE).version
    change = StateChange(state="deprecated", reason="there is a better one", successor="acme/tone@1")
    registry.versions.set_state(TONE, second.digest, change, 0)
    return registry


def test_a_prepared_read_returns_what_every_other_read_returns(registry: LocalRegistry) -> None:
    with registry.catalog.read() as tx:
        expected = everything(registry, tx)
    with registry.catalog.read_prepared() as reads:
        assert everything(registry, reads) == expected
    assert registry.catalog.has_prepared


def test_prepared_reads_see_one_moment_and_the_next_ones_what_another_process_committed(
    registry: LocalRegistry, postgres: PostgresServer, name: str
) -> None:
    other = LocalRegistry(RegistryContext(Catalog(postgres.url(name)), MemoryBlobs()))
    second = registry.versions.get(Ref.parse("acme/tone@2")).digest
    with contextlib.closing(other), registry.catalog.read_prepared() as reads:
        before = registry.context.resolve(reads, PROD).number
        other.aliases.move(TONE, "prod", second, 1)
        assert (before, registry.context.resolve(reads, PROD).number) == (1, 1)
    assert registry.versions.get(PROD).number == 2


def test_connections_that_the_server_ended_are_replaced(
    registry: LocalRegistry, postgres: PostgresServer, name: str
) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert {found.number for found in pool.map(registry.versions.get, [PROD] * 16)} == {1}
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert [registry.versions.get(PROD).number for _ in range(8)] == [1] * 8


def test_an_error_of_a_statement_ends_its_transaction_and_the_next_one_works(registry: LocalRegistry) -> None:
    with pytest.raises(Invalid, match=r"U\+0000"), registry.catalog.read_prepared() as reads:
        adapters.find(reads, AdapterName("acme", "to\0ne"))
    for _ in range(20):  # more than there are connections
        with pytest.raises(Exception, match="division by zero"), registry.catalog.read_prepared() as reads:
            run_select(reads, _DIVISION, {"by": 0})
    assert registry.versions.get(PROD).number == 1


def test_more_readers_than_connections_take_turns(registry: LocalRegistry) -> None:
    with ThreadPoolExecutor(40) as pool:
        assert {found.number for found in pool.map(registry.versions.get, [PROD] * 200)} == {1}


def test_a_reader_of_one_namespace_counts_findings(registry: LocalRegistry) -> None:
    reader = registry.on_behalf_of(Identity.with_role("ann", "reader", ("acme",)))
    for text in ("findings>0", "findings<0.5", "-findings>=1", "findings=1 OR findings>2.5"):
        assert reader.versions.search(text).items == registry.versions.search(text).items, text
    assert reader.versions.search("findings>0").items


def test_a_search_is_planned_for_its_values_and_other_reads_once_for_all(registry: LocalRegistry) -> None:
    with registry.catalog.read_prepared(is_search=True) as reads:
        assert run_select(reads, _PLANNING, {})[0].mode == "force_custom_plan"
    with registry.catalog.read_prepared() as reads:
        assert run_select(reads, _PLANNING, {})[0].mode == "auto"


def test_reads_in_a_block_see_one_moment(
    registry: LocalRegistry, postgres: PostgresServer, name: str
) -> None:
    other = LocalRegistry(RegistryContext(Catalog(postgres.url(name)), MemoryBlobs()))
    second = registry.versions.get(Ref.parse("acme/tone@2")).digest
    with contextlib.closing(other), registry.catalog.read_together():
        assert registry.versions.get(PROD).number == 1
        other.aliases.move(TONE, "prod", second, 1)
        assert [found.version.number for found in registry.versions.details([PROD])] == [1]
        assert registry.versions.list(TONE).items[1].aliases == ("prod",)
    assert registry.versions.get(PROD).number == 2
