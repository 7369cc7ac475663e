"""Lists and searches read about as many rows in a large registry as in a small one, for every caller, and
return exactly what the caller may read.

On SQLite, the steps of its virtual machine are counted; on PostgreSQL, the rows that a transaction reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, make_url, text

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.query import parse
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterInfo, VersionInfo
from adaptry.registry.sort_keys import ADAPTER_SORT_KEYS
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import adapter_pages, search
from adaptry.storage.catalog.access import read_scope
from adaptry.storage.catalog.adapter_pages import Listing
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.search import SearchRequest
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import PostgresServer

NAMESPACES, VERSIONS = 40, 5
SMALL, LARGE = 400, 4_000  # adapters


def reader(*resources: str) -> Identity:
    return Identity("ann", tuple(Grant("viewer", Resource.parse(one)) for one in resources), principal=1)


ANN = reader("team-7", "team-11", "team-3/adapter-3")
READERS = {"an administrator": LOCAL, "a reader": ANN, "a stranger": reader("other")}


def fill(catalog: str, adapters: int) -> str:
    """Adds adapters with versions to an empty catalog: in 40 namespaces, with one in 50 public. The word
    `tone` is in a tenth of the versions.
    """
    Catalog(catalog).close()
    is_sqlite = catalog.startswith("sqlite")
    engine = create_engine(catalog if is_sqlite else make_url(catalog).set(drivername="postgresql+psycopg"))

    def numbers(limit: int) -> str:
        if not is_sqlite:
            return f"WITH ids(id) AS (SELECT generate_series(1, {limit}))"
        return f"WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {limit})"

    def terms(field: str, first: int, text: str, limit: int) -> str:
        return (
            f"INSERT INTO terms (id, field, text) {numbers(limit)}"
            f" SELECT {first} + id, '{field}', {text} FROM ids"
        )

    visibility = "CASE WHEN id % 50 = 5 THEN 'public' ELSE 'private' END"
    digest = "printf('%064x', id)" if is_sqlite else "lpad(to_hex(id), 64, '0')"
    day = "printf('2026-01-%02d 00:00:00.000000', 1 + id % 28)"
    if not is_sqlite:
        day = "timestamptz '2026-01-01 00:00:00Z' + (id % 28) * interval '1 day'"
    with engine.begin() as connection:
        if is_sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        adapter = f"'team-' || (id % {NAMESPACES}) || '/adapter-' || id"
        posted = "INSERT INTO postings (term_id, version_id) SELECT"
        for statement in (
            f"INSERT INTO namespaces (name) {numbers(NAMESPACES)} SELECT 'team-' || (id - 1) FROM ids",
            "INSERT INTO adapters (id, name, namespace, description, tags, visibility, created_at,"
            f" updated_at, next_number, downloads, version_count) {numbers(adapters)} SELECT id, {adapter},"
            f" 'team-' || (id % {NAMESPACES}), '', '[]', {visibility}, '2026-01-01', {day}, {VERSIONS + 1},"
            f" id % 7, {VERSIONS} FROM ids",
            "INSERT INTO versions (id, adapter_id, number, digest, state, created_at, created_by, method,"
            " weights, base_status, targets, traits, parameters, size, findings, downloads, rank, alpha)"
            f" {numbers(adapters * VERSIONS)} SELECT id, 1 + (id - 1) % {adapters},"
            f" 1 + (id - 1) / {adapters}, {digest}, 'active', {day}, 'ann', 'lora', {digest},"
            " 'verified', '[]', '[]', 1, id % 1000, id % 2, id % 3, 4 + 4 * (id % 5), 8 + id % 7 FROM ids",
            "INSERT INTO terms (id, field, text) VALUES (1, 'visibility', 'public'), (2, 'word', 'tone')",
            terms("namespace", 9, "'team-' || (id - 1)", NAMESPACES),
            terms("name", 999, adapter, adapters),
            f"{posted} 1, id FROM versions WHERE adapter_id % 50 = 5",
            f"{posted} 2, id FROM versions WHERE (adapter_id / 40) % 10 = 3",
            f"{posted} 10 + adapter_id % {NAMESPACES}, id FROM versions",
            f"{posted} 999 + adapter_id, id FROM versions",
            "INSERT INTO metric_values (version_id, metric, value, logged_at, logged_by, task) SELECT id,"
            f" 'acc', (id % 10) / 10.0, {day}, 'ann', 'exam' FROM versions WHERE id % 2 = 0",
            "INSERT INTO metric_summaries (version_id, metric, newest, highest, lowest)"
            " SELECT id, 'accuracy', (adapter_id / 40) % 10 / 10.0, 0, 0 FROM versions",
        ):
            connection.execute(text(statement))
        if not is_sqlite:
            connection.execute(text("ANALYZE"))
    engine.dispose()
    return catalog


@pytest.fixture(scope="module")
def sqlite_catalogs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("catalogs")
    return [fill(f"sqlite:///{folder}/{size}.sqlite", size) for size in (SMALL, LARGE)]


@pytest.fixture(scope="module")
def postgres_catalogs(postgres: PostgresServer) -> list[str]:
    return [fill(postgres.database(), size) for size in (SMALL, LARGE)]


@pytest.fixture(params=["sqlite", "postgres"])
def catalogs(request: pytest.FixtureRequest) -> Iterator[list[Catalog]]:
    urls: list[str] = request.getfixturevalue(f"{request.param}_catalogs")
    opened = [Catalog(url) for url in urls]
    yield opened
    for catalog in opened:
        catalog.close()


def rows_read(catalog: Catalog, read: Callable[[Transaction], object]) -> int:
    """The number of rows that a transaction reads on PostgreSQL, or of steps that it takes on SQLite, in
    tens.
    """
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with catalog.read() as tx:
        if catalog.path is None:
            figures = text(
                "SELECT SUM(seq_tup_read + COALESCE(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
            )
            before = tx.connection().execute(figures).scalar_one()  # it may include the last transactions'
            read(tx)
            return int(tx.connection().execute(figures).scalar_one() - before)
        driver = tx.connection().connection.dbapi_connection
        driver.set_progress_handler(step, 10)  # type: ignore[union-attr]
        try:
            read(tx)
        finally:
            driver.set_progress_handler(None, 0)  # type: ignore[union-attr]
    return count


@pytest.mark.parametrize("identity", READERS.values(), ids=READERS)
def test_a_list_of_adapters_reads_no_more_rows_in_a_large_registry(
    catalogs: list[Catalog], identity: Identity
) -> None:
    for namespace in (None, "team-7", "team-5"):
        for sort in ADAPTER_SORT_KEYS:
            for reverse in (False, True):
                listing = Listing(namespace, sort, reverse)

                def two_pages(tx: Transaction, listing: Listing = listing) -> None:
                    scope = read_scope(tx, identity)
                    page = adapter_pages.page(tx, scope, listing, None, 5)
                    adapter_pages.page(tx, scope, listing, page.next, 5)

                small, large = (rows_read(catalog, two_pages) for catalog in catalogs)
                assert large <= 2 * small + 500, (listing, small, large)


@pytest.mark.parametrize("identity", READERS.values(), ids=READERS)
def test_a_search_reads_no_more_rows_in_a_large_registry(
    sqlite_catalogs: list[str], identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(PostgreSQL reads a table with so few rows completely.)"""
    catalogs = [Catalog(url) for url in sqlite_catalogs]
    monkeypatch.setattr(search, "SELECTIVE", 20)  # so that the small registry also has more of everything
    monkeypatch.setattr(search, "MAX_TESTS", 400)  # so that rare matches are bounded
    for query in QUERIES:
        for sort in ("newest", SORTS[QUERIES.index(query) % len(SORTS)]):
            check_flat(catalogs, identity, query, sort)
    for sort in SORTS:
        check_flat(catalogs, identity, "rank<=16", sort)
        check_flat(catalogs, identity, "tone -tone", sort)
    for catalog in catalogs:
        catalog.close()


QUERIES = (
    *("", "metric.accuracy>=0.9", "tone", "tone metric.accuracy>=0.3", "unknown", "-tone"),
    *("tone OR rank=4", "tone -tone", "(tone OR alpha>=14) findings>0", "-(rank=4 OR rank=8)"),
    *("unknown OR digest:0000*", "created>=2026-01-20", "created<2026-01-05", "updated<2026-01-03"),
    *(
        "has:eval.exam",
        "eval.exam.acc>=0.8",
        "eval.exam.none>0",
        "has:alias",
        "loaded:*",
        "finding:weights_nan",
    ),
    *("has:rank size>=990", "namespace:team-7 OR namespace:team-11", "metric.accuracy<0 OR tone"),
)
SORTS = ("name", "created", "updated", "rank", "alpha", "size", "metric.accuracy", "eval.exam.acc")


def check_flat(catalogs: list[Catalog], identity: Identity, query: str, sort: str) -> None:
    """Asserts that two pages of a search cost about as much in the large registry."""
    now = datetime(2026, 2, 1, tzinfo=UTC)

    def two_pages(tx: Transaction) -> None:
        scope = read_scope(tx, identity)
        parsed = parse(query, now)
        page = search.search(tx, scope, SearchRequest(query, parsed, None, 10, sort), now)
        search.search(tx, scope, SearchRequest(query, parsed, page.next, 10, sort), now)

    small, large = (rows_read(catalog, two_pages) for catalog in catalogs)
    assert large <= 2 * small + 2_000, (query, sort, small, large)  # all versions: 30,000


MIXED = reader("team-1", "team-2*", "team-30/adapter-1*", "team-30/adapter-30", "team-5/adapter-5")
MANY = reader(*(f"team-{number}" for number in range(1, 39)))


@pytest.mark.parametrize("most", [50, 4])
def test_a_reader_gets_readable_adapters_in_listing_order(
    catalogs: list[Catalog], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read by spans or, if there are more than `most` spans, by an index of all adapters."""
    monkeypatch.setattr(adapter_pages, "_MAX_SPANS", most)
    registry = LocalRegistry(RegistryContext(catalogs[0], MemoryBlobs()))

    def listed(identity: Identity, namespace: str | None, sort: str, reverse: bool) -> list[AdapterInfo]:
        adapters = registry.on_behalf_of(identity).adapters
        return list(
            iter_items(
                lambda cursor: adapters.list(
                    namespace, cursor, 3 if namespace else 100, sort=sort, reverse=reverse
                )
            )
        )

    every = sorted(listed(LOCAL, None, "name", False), key=lambda info: str(info.name))
    assert len(every) == SMALL
    for sort, reverse in (("name", False), ("updated", True)):
        if sort == "updated":
            every.sort(key=lambda info: info.updated_at, reverse=True)
        for identity, namespace in ((MIXED, None), (MIXED, "team-30"), (MANY, None)):
            expected = [
                info
                for info in (every[::-1] if reverse else every)
                if identity.may_read(info.name, info.visibility) and namespace in (None, info.name.namespace)
            ]
            assert listed(identity, namespace, sort, reverse) == expected


def test_a_search_finds_only_readable_adapters(
    catalogs: list[Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SELECTIVE", 20)
    registry = LocalRegistry(RegistryContext(catalogs[0], MemoryBlobs()))
    public = {
        info.name: info.visibility for info in iter_items(lambda c: registry.adapters.list(None, c, 200))
    }

    def found(identity: Identity, query: str) -> list[VersionInfo]:
        versions = registry.on_behalf_of(identity).versions
        return list(iter_items(lambda cursor: versions.search(query, cursor, 90)))

    for query in ("tone", "metric.accuracy>=0.8", "tone metric.accuracy<0.1"):
        every = found(LOCAL, query)
        for identity in (MIXED, MANY, ANN):
            expected = [info for info in every if identity.may_read(info.name, public[info.name])]
            assert found(identity, query) == expected
