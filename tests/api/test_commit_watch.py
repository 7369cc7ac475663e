"""With PostgreSQL, a server notices each commit, and its view is never older than the request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adaptry.storage.catalog.database import Catalog
from adaptry.testing.postgres import PostgresServer
from adaptry_api.commit_watch import Commit, CommitWatch

pytestmark = pytest.mark.slow


@pytest.fixture
def name(postgres: PostgresServer) -> str:
    return postgres.create_migrated()


@asynccontextmanager
async def watching(catalog: Catalog) -> AsyncIterator[CommitWatch]:
    watch = CommitWatch(catalog)
    try:
        await known(watch)
        yield watch
    finally:
        watch.close()
        await asyncio.sleep(0)


async def known(watch: CommitWatch) -> Commit:
    """The last commit, once the watch is connected."""
    async with asyncio.timeout(60):
        while (commit := await watch.last_commit()) is None:
            await asyncio.sleep(0.01)
    return commit


def insert(catalog: Catalog, namespace: str) -> None:
    with catalog.write() as tx:
        tx.connection().exec_driver_sql(f"INSERT INTO namespaces (name) VALUES ('{namespace}')")


def test_the_last_commit_changes_with_each_commit_of_any_process_and_only_then(
    postgres: PostgresServer, name: str
) -> None:
    catalog, other = Catalog(postgres.url(name)), Catalog(postgres.url(name))

    async def act() -> None:
        async with watching(catalog) as watch:
            seen = []
            for number in range(20):
                insert(other, f"acme-{number}")
                seen.append(await watch.last_commit())
                with catalog.read() as tx:
                    tx.connection().exec_driver_sql("SELECT 1")
                together = await asyncio.gather(*(watch.last_commit() for _ in range(50)))
                assert set(together) == {seen[-1]}
            assert len(set(seen)) == 20
            assert None not in seen

    asyncio.run(act())
    catalog.close()
    other.close()


def test_the_last_commit_is_unknown_from_a_lost_connection_until_the_next_one(
    postgres: PostgresServer, name: str
) -> None:
    catalog = Catalog(postgres.url(name))

    async def act() -> None:
        async with watching(catalog) as watch:
            postgres.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            answers = await asyncio.gather(*(watch.last_commit() for _ in range(5)))
            assert set(answers) == {None}
            before = await known(watch)
            for _ in range(3):  # the lost connection is not queried, and its socket not watched
                assert await asyncio.wait_for(watch.last_commit(), 5) == before
            insert(catalog, "acme")
            assert await watch.last_commit() not in (None, before)

    asyncio.run(act())
    catalog.close()
