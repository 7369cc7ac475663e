"""Reads on PostgreSQL that run on an event loop return what other reads return, and never block it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Integer, bindparam, literal, select

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions, VersionInfo
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.loop_reads import run_on_loop
from adaptry.storage.catalog.postgres_pipeline import Pipeline
from adaptry.storage.catalog.postgres_reader import PostgresReader
from adaptry.storage.catalog.prepared import key_of, run_select
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.slow
TONE, PROD = AdapterName.parse("acme/tone"), Ref.parse("acme/tone@prod")
Result = TypeVar("Result")
_DIVISION = select((literal(7) / bindparam("by", type_=Integer)).label("quotient"))


@pytest.fixture
def registry(on_postgres: LocalRegistry, tmp_path: Path) -> LocalRegistry:
    """Three versions, and an alias of the first."""
    push(on_postgres, open_dir(tiny_lora(tmp_path / "one")), TONE, options=PushOptions(alias="prod"))
    for seed in (2, 3):
        push(on_postgres, open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), TONE)
    return on_postgres


class Reads:
    """Reads of a registry on an event loop; `in_threads` counts those that a thread had to repeat."""

    def __init__(self, registry: LocalRegistry) -> None:
        self.registry = registry
        self.in_threads = 0

    async def get(self, ref: Ref) -> VersionInfo:
        return await run_on_loop(lambda: self.registry.versions.get(ref), self._in_thread)

    async def _in_thread(self, read: Callable[[], Result]) -> Result:
        self.in_threads += 1
        return await asyncio.to_thread(read)

    async def warm(self) -> None:
        """Opens as many connections as reads at once use."""
        while True:
            before = self.in_threads
            await asyncio.gather(*(self.get(PROD) for _ in range(6)))
            if self.in_threads == before:
                return


def run(act: Callable[[], Awaitable[None]]) -> None:
    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await act()

    asyncio.run(within_a_minute())


def test_reads_at_once_return_what_other_reads_return(registry: LocalRegistry) -> None:
    reads = Reads(registry)
    refs = [Ref.parse(f"acme/tone@{selector}") for selector in ("1", "2", "3", "prod", "latest")]
    expected = [registry.versions.get(ref) for ref in refs]

    async def act() -> None:
        await reads.warm()
        before = reads.in_threads
        for _ in range(20):
            assert await asyncio.gather(*map(reads.get, refs)) == expected
        assert reads.in_threads == before
        missing = [Ref.parse("acme/tone@9"), Ref.parse("acme/other@1")]
        errors = await asyncio.gather(*map(reads.get, missing), return_exceptions=True)
        assert [type(error) for error in errors] == [NotFound, NotFound]
        assert await asyncio.gather(*map(reads.get, refs)) == expected

    run(act)


def test_the_loop_turns_while_postgresql_keeps_a_read_waiting(
    registry: LocalRegistry, postgres: PostgresServer, name: str
) -> None:
    reads, other = Reads(registry), Catalog(postgres.url(name))

    async def act() -> None:
        await reads.warm()
        with other.write() as tx:
            tx.connection().exec_driver_sql("LOCK TABLE versions IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.ensure_future(reads.get(PROD)) for _ in range(3)]
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert not any(one.done() for one in waiting)
            waiting[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
        assert [found.number for found in await asyncio.gather(*waiting[1:])] == [1, 1]
        assert (await reads.get(PROD)).number == 1

    run(act)
    other.close()


def test_a_thread_replaces_connections_that_the_server_ended(
    registry: LocalRegistry, postgres: PostgresServer, name: str
) -> None:
    reads = Reads(registry)

    async def act() -> None:
        await reads.warm()
        for idle_seconds in (0.0, 0.1):  # the loop learns about the end before the next read, or during it
            before = reads.in_threads
            postgres.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            await asyncio.sleep(idle_seconds)
            assert (await reads.get(PROD)).number == 1
            assert reads.in_threads > before
            await reads.warm()

    run(act)


def test_a_read_reports_the_same_snapshot_until_the_next_commit(
    registry: LocalRegistry, postgres: PostgresServer, name: str
) -> None:
    catalog = registry.catalog
    other = LocalRegistry(RegistryContext(Catalog(postgres.url(name)), MemoryBlobs()))
    digests = [version.digest for version in registry.versions.list(TONE).items]

    def read() -> tuple[int, str]:
        found, snapshot = catalog.read_with_snapshot(lambda: registry.versions.get(PROD), about=PROD)
        assert snapshot is not None
        return found.number, snapshot.partition(" ")[2]

    for generation, digest in enumerate(digests, 1):
        other.aliases.move(TONE, "prod", digest, generation)
        number, snapshot = read()
        assert number == len(digests) + 1 - generation
        assert read() == (number, snapshot)
    other.close()


def test_repeated_reads_take_one_round_trip_and_are_as_current_as_others(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips, receive = list[int](), Pipeline.receive_all
    monkeypatch.setattr(Pipeline, "receive_all", lambda pipeline: (trips.append(1), receive(pipeline))[1])

    def trips_of(read: Callable[[], object]) -> int:
        trips.clear()
        read()
        return len(trips)

    def get() -> VersionInfo:
        return registry.catalog.read_with_snapshot(lambda: registry.versions.get(PROD), about=PROD)[0]

    def detail() -> int:
        return registry.versions.detail(PROD).version.number

    assert trips_of(get) > 1
    assert trips_of(detail) > 1
    assert trips_of(get) == trips_of(detail) == 1
    second = registry.versions.get(Ref.parse("acme/tone@2")).digest
    registry.aliases.move(TONE, "prod", second, 1)
    assert (get().number, detail()) == (2, 2)  # some expected statements were about the first version
    assert get().aliases == ("prod",)
    assert trips_of(get) == trips_of(detail) == 1


def test_an_expected_statement_that_fails_is_not_expected_again(registry: LocalRegistry) -> None:
    def divide(by: int) -> int:
        with registry.catalog.read_prepared(about="quotient") as reads:
            if by:
                return int(run_select(reads, _DIVISION, {"by": by})[0].quotient)
            return 0

    statements = registry.catalog._database.prepared._last_statements  # type: ignore[union-attr]
    assert divide(7) == 1
    statements.note("quotient", [key_of(_DIVISION, {"by": 0})])
    with pytest.raises(Exception, match="division by zero"):
        divide(7)
    assert (divide(7), divide(0)) == (1, 0)


def test_mixed_reads_open_no_connections_once_there_are_enough(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, opened = Reads(registry), list[int]()
    made = PostgresReader.__init__

    def make(reader: PostgresReader, *given: Any) -> None:
        opened.append(1)
        made(reader, *given)

    def in_thread() -> VersionInfo:
        return registry.versions.get(PROD)

    async def act() -> None:
        with ThreadPoolExecutor(6) as pool:
            for _ in range(30):
                together = [asyncio.wrap_future(pool.submit(in_thread)) for _ in range(6)]
                found = await asyncio.gather(*together, *(reads.get(PROD) for _ in range(6)))
                assert {version.number for version in found} == {1}

    monkeypatch.setattr(PostgresReader, "__init__", make)
    run(act)
    assert len(opened) <= 16


def test_a_read_that_needs_a_session_is_repeated_in_a_thread(registry: LocalRegistry) -> None:
    in_threads = 0

    def read() -> VersionInfo:
        with registry.catalog.read() as tx:  # as for callers who may not see a version's base
            assert tx is not None
        return registry.versions.get(PROD)

    async def in_thread(read: Callable[[], VersionInfo]) -> VersionInfo:
        nonlocal in_threads
        in_threads += 1
        return await asyncio.to_thread(read)

    async def act() -> None:
        assert (await run_on_loop(read, in_thread)).number == 1

    run(act)
    assert in_threads == 1
