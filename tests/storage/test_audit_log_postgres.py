"""The audit log on PostgreSQL: late commits, two servers, and the same entries as on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptry.core.errors import CorruptData
from adaptry.core.refs import AdapterName
from adaptry.core.transparency.checkpoint import LogCheckpoint, VerifierKey
from adaptry.operations.audit_verification import verify_log
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.audit_log.log_key import LogKey
from adaptry.storage.catalog.audit_log.sequencer import LEASE, Sequencer
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import PostgresServer

from .audit_changes import CHANGING, TONE, entries, make_every_change

NOW = datetime(2026, 11, 28, tzinfo=UTC)
INSERT = (
    "INSERT INTO audit_entries (at, action, actor, resource, outcome, detail)"
    " VALUES (now(), 'adapter.edit', %s, 'acme/tone', 'allowed', '{}')"
)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.database()


@pytest.fixture
def registry(url: str) -> Iterator[LocalRegistry]:
    registry = LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs()))
    yield registry
    registry.close()


def test_every_change_is_recorded_once_with_old_and_new_values(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    seen, made = 0, set()
    for method, expected in make_every_change(registry, tmp_path):
        found = entries(registry)[seen:]
        assert len(found) == len(expected), (method, [entry.line for entry in found])
        assert all(wanted.matches(entry) for entry, wanted in zip(found, expected, strict=True)), method
        seen += len(found)
        made.add(method)
    assert made == CHANGING
    assert verify_log(registry.audit).problems == ()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_late_commit_is_sealed_next_and_no_entry_is_skipped(url: str, draw: st.DataObject) -> None:
    """Transactions without the writers' lock get their keys in one order and commit in another."""
    count = draw.draw(st.integers(1, 4), "transactions")
    commits = draw.draw(st.permutations(range(count)), "order of commits")
    fates = draw.draw(st.lists(st.booleans(), min_size=count, max_size=count), "committed or rolled back")
    looks = draw.draw(st.lists(st.booleans(), min_size=count, max_size=count), "sealed after it or not")
    catalog = Catalog(url)
    key = LogKey(secret=b"a secret of the servers")
    sequencer = Sequencer(catalog, key, "the only one")
    registry = LocalRegistry(RegistryContext(catalog, MemoryBlobs(), log_key=key))
    with ExitStack() as stack:
        stack.callback(registry.close)
        start = registry.audit.checkpoint()
        before = LogCheckpoint.parse(start.note).size if start.note else 0
        open_ones = [stack.enter_context(psycopg.connect(url)) for _ in range(count)]
        for number, connection in enumerate(open_ones):
            connection.execute(INSERT, (f"actor-{number}",))
        expected: list[set[str]] = [set()]
        for number, is_committed, is_sealed in zip(commits, fates, looks, strict=True):
            open_ones[number].commit() if is_committed else open_ones[number].rollback()
            if is_committed:
                expected[-1].add(f"actor-{number}")
            if is_sealed:
                sequencer.run(datetime.now(UTC))
                expected.append(set())
        sequencer.run(datetime.now(UTC))
        found = [entry.actor for entry in registry.audit.sealed(before).items]
        for batch in expected:
            assert set(found[: len(batch)]) == batch
            found = found[len(batch) :]
        assert found == []
        assert verify_log(registry.audit, None, start.note).problems == ()


def test_two_servers_that_write_and_seal_at_once_have_one_log(url: str) -> None:
    key = LogKey(secret=b"a secret of the servers")
    catalogs = [Catalog(url), Catalog(url)]
    registries = [LocalRegistry(RegistryContext(one, MemoryBlobs(), log_key=key)) for one in catalogs]
    sequencers = [Sequencer(one, key) for one in catalogs]
    for number, registry in enumerate(registries):
        registry.adapters.create(AdapterName.parse(f"acme/tone-{number}"), AdapterEdit())

    def write(number: int) -> None:
        name = AdapterName.parse(f"acme/tone-{number % 2}")
        registries[number % 2].adapters.edit(name, AdapterEdit(description=str(number)))

    def seal(number: int) -> None:
        sequencers[number % 2].run(datetime.now(UTC), waits_for_lease=number % 3 == 0)

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(act, number) for number in range(40) for act in (write, seal)]
        for one in done:
            one.result()
    sequencers[0].run(datetime.now(UTC) + LEASE)
    report = verify_log(registries[0].audit)
    edits = [entry for entry in registries[1].audit.sealed(0).items if entry.action == "adapter.edit"]
    assert (report.problems, report.unsealed) == ((), 0)
    assert {dict(entry.after or {})["description"] for entry in edits} == {str(n) for n in range(40)}
    for registry in registries:
        registry.close()


def test_another_server_takes_over_from_one_that_died_between_sealing_and_signing(
    registry: LocalRegistry,
) -> None:
    key = registry.context.log_key
    registry.adapters.create(TONE, AdapterEdit())
    Sequencer(registry.catalog, key, "dead").run(NOW)
    registry.adapters.edit(TONE, AdapterEdit(description="more"))
    Sequencer(registry.catalog, key, "dead").run(NOW)
    with registry.catalog.write() as tx:  # the state after the process died before it signed
        tx.connection().exec_driver_sql("DELETE FROM audit_checkpoints WHERE size = 2")

    Sequencer(registry.catalog, key, "next").run(NOW + timedelta(seconds=1))

    found = registry.audit.checkpoint()
    assert LogCheckpoint.verify(found.note or "", VerifierKey.parse(found.key or "")).size == 2
    assert len(registry.audit.list(AuditFilter(denied=False)).items) == 2


def test_an_entry_with_the_next_number_is_reported_as_an_altered_log(
    registry: LocalRegistry, url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for actor in ("ann", "bob"):
            connection.execute(INSERT, [actor])
        connection.execute("UPDATE audit_entries SET seq = 0, leaf = '' WHERE actor = 'ann'")
    with pytest.raises(CorruptData, match="an entry has the next number already"):
        Sequencer(registry.catalog, registry.context.log_key).run(NOW)
