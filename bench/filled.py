"""Creates catalogs with many versions for benchmarks, in SQL, so that a million take a minute and not a day.

    python bench/filled.py [--database sqlite|postgresql] [--size 100000]

Rare items have the same number in catalogs of any size, common items the same density, so that both answers
of a search fill the same page. Ten versions of each adapter (`team-7/adapter-17`), of which the newest is
`prod`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, make_url, text

from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import Row
from adaptry.testing.postgres import postgres_server

VERSIONS_PER_ADAPTER = 10
NAMESPACES = 10
RARE = 60

# `{rare}` is the distance between two rare versions, `{newest}` the last number of each adapter;
# a number in [0, 1) that looks random.
_RANDOM = "(((id * 2654435761) % 4294967296) / 4294967296.0)"
_POSTINGS = {
    ("base", "org/common"): f"{_RANDOM} < 0.6",
    ("base", "org/rare"): "id % {rare} = 3",
    ("method", "lora"): "id % 10 <> 0",
    ("method", "vera"): "id % {rare} = 5",
    ("module", "q_proj"): "1 = 1",
    ("module", "v_proj"): "1 = 1",
    ("module", "k_proj"): "id % 2 = 0",
    ("module", "lm_head"): "id % {rare} = 7",
    ("alias", "prod"): "number = {newest}",
    ("tag", "checked"): "id % 5 = 0",
    ("tag", "seldom"): "id % {rare} = 11",
    ("word", "tone"): "id % 3 = 0",
    ("word", "unusual"): "id % {rare} = 13",
    ("finding", "base_unknown"): "id % 3 = 1",
    ("finding", "nan_weights"): "id % {rare} = 17",
    ("visibility", "private"): "1 = 1",
    ("state", "active"): "1 = 1",
}
_OF_NAMESPACE, _OF_NAME = 1_000, 10_000


def adapter_of(number: int, count: int) -> str:
    """The name of the adapter with this number; any number is valid."""
    key = 1 + number % max(1, count // VERSIONS_PER_ADAPTER)
    return f"team-{key % NAMESPACES}/adapter-{key}"


def fill(
    url: str, count: int, namespaces: int = NAMESPACES, versions_per_adapter: int = VERSIONS_PER_ADAPTER
) -> None:
    """Adds this many versions to the catalog at `url`, which is created if it is missing and must be
    empty."""
    Catalog(url).close()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg") if "postgres" in url else url)
    with engine.connect() as connection, _unwatched(connection):
        is_sqlite = engine.dialect.name == "sqlite"
        for statement in _statements(count, namespaces, versions_per_adapter, is_sqlite=is_sqlite):
            connection.execute(text(statement))
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


@contextmanager
def filled(database: str, sizes: Sequence[int], namespaces: int = NAMESPACES) -> Iterator[dict[int, str]]:
    """The addresses of catalogs of these sizes, in SQLite files or in a PostgreSQL server, until the block
    ends.
    """
    with ExitStack() as stack:
        if database == "sqlite":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            urls = {size: f"sqlite:///{folder / str(size)}.sqlite" for size in sizes}
        else:
            server = stack.enter_context(postgres_server())
            urls = {size: server.database() for size in sizes}
        for size, url in urls.items():
            started = time.perf_counter()
            fill(url, size, namespaces)
            print(
                f"{database}: filled {size:,} versions in {time.perf_counter() - started:.0f} s", flush=True
            )
        yield urls


@contextmanager
def _unwatched(connection: Connection) -> Iterator[None]:
    """Disables indexes, foreign keys and flushes during the block; the indexes are created at its end."""
    is_sqlite = connection.dialect.name == "sqlite"
    slow = ["synchronous=OFF", "foreign_keys=OFF", "cache_size=-400000"]
    said = [f"PRAGMA {each}" for each in slow] if is_sqlite else ["SET session_replication_role = replica"]
    for statement in said:
        connection.exec_driver_sql(statement)
    connection.commit()
    indexes = [index for table in Row.metadata.sorted_tables for index in table.indexes]
    with ExitStack() as stack:
        for index in indexes:
            index.drop(connection)
            stack.callback(index.create, connection)
        yield
    connection.commit()


def _statements(count: int, namespaces: int, per_adapter: int, *, is_sqlite: bool) -> Iterator[str]:
    rare = max(1, count // RARE)
    adapters = max(1, count // per_adapter)

    def numbers(limit: int) -> str:
        if not is_sqlite:
            return f"WITH ids(id) AS (SELECT generate_series(1, {limit}))"
        return f"WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {limit})"

    digest = "printf('%064x', id)" if is_sqlite else "lpad(to_hex(id), 64, '0')"
    span = f"(id * 1000 / {count})"
    day = f"datetime('2023-01-01', '+' || {span} || ' days')"
    if not is_sqlite:
        day = f"timestamptz '2023-01-01 00:00:00Z' + {span} * interval '1 day'"
    name = f"'team-' || (id % {namespaces}) || '/adapter-' || id"
    yield f"INSERT INTO namespaces (name) {numbers(namespaces)} SELECT 'team-' || (id - 1) FROM ids"
    yield (
        "INSERT INTO adapters (id, name, namespace, description, tags, visibility, created_at, updated_at,"
        f" next_number, downloads, version_count) {numbers(adapters)} SELECT id, {name},"
        f" 'team-' || (id % {namespaces}), '', '[]', 'private', '2026-01-01', '2026-01-01',"
        f" {per_adapter + 1}, 0, {per_adapter} FROM ids"
    )
    yield (
        "INSERT INTO versions (id, adapter_id, number, digest, state, created_at, created_by, method, rank,"
        f" targets, traits, parameters, size, weights, base_status, findings, downloads) {numbers(count)}"
        f" SELECT id, 1 + (id - 1) % {adapters}, 1 + (id - 1) / {adapters}, {digest}, 'active', {day},"
        f" 'bench', 'lora', CASE WHEN id % {rare} = 1 THEN 512 ELSE 4 << (id % 5) END, '[\"q_proj\","
        f" \"v_proj\"]', '[]', id % 1000000, id % 1000000000, {digest}, 'verified', 0, id % 100 FROM ids"
    )
    yield "UPDATE versions SET alpha = 8 + id % 3, findings = CASE WHEN id % 3 = 1 THEN 1 ELSE 0 END"
    yield (
        "INSERT INTO metric_values (version_id, metric, value, logged_at, logged_by, task) SELECT id,"
        f" 'exact_match', {_RANDOM}, '2026-01-01', 'bench', CASE WHEN id % {rare} = 19 THEN 'seldom' ELSE"
        " 'gsm8k' END FROM versions WHERE id % 2 = 1"
    )
    yield (
        "INSERT INTO metric_summaries (version_id, metric, newest, highest, lowest) SELECT id, 'accuracy',"
        f" v, v, v FROM (SELECT id, CASE WHEN id % {rare} = 9 THEN 2.5 ELSE {_RANDOM} END AS v FROM versions)"
        " AS drawn"
    )
    yield (
        "INSERT INTO aliases (adapter_id, alias, version_id, generation, moved_at, moved_by) SELECT"
        " adapter_id, 'prod', id, 1, '2026-01-01', 'bench' FROM versions WHERE number ="
        f" {per_adapter}"
    )
    for number, ((field, word), condition) in enumerate(_POSTINGS.items(), start=1):
        yield f"INSERT INTO terms (id, field, text) VALUES ({number}, '{field}', '{word}')"
        met = condition.format(rare=rare, newest=per_adapter)
        yield f"INSERT INTO postings (term_id, version_id) SELECT {number}, id FROM versions WHERE {met}"
    yield (
        f"INSERT INTO terms (id, field, text) {numbers(namespaces)}"
        f" SELECT {_OF_NAMESPACE} + id - 1, 'namespace', 'team-' || (id - 1) FROM ids"
    )
    yield (
        f"INSERT INTO postings (term_id, version_id) SELECT {_OF_NAMESPACE} + adapter_id % {namespaces}, id"
        " FROM versions ORDER BY 1, 2"
    )
    yield f"INSERT INTO terms (id, field, text) SELECT {_OF_NAME} + id, 'name', name FROM adapters"
    yield (
        f"INSERT INTO postings (term_id, version_id) SELECT {_OF_NAME} + adapter_id, id FROM versions ORDER"
        " BY 1, 2"
    )
    if not is_sqlite:  # which numbers the following rows itself
        for table in ("adapters", "versions", "terms"):
            yield f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--size", type=int, default=100_000)
    asked = parser.parse_args()
    with filled(asked.database, [asked.size]):
        pass
