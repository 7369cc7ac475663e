"""How much slower is a search among a million versions than among a thousand?

    python bench/search.py [--sizes 1000 1000000] [--folder DIR]

Fills two catalogs in SQL (so that filling takes a minute, not a day), asks both the same questions through
`LocalRegistry.search`, and prints the median time of each and their ratio. Rare things are equally many in both,
common ones equally dense, so that both answers fill the same page.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adaptry.blobs.memory import MemoryBlobs
from adaptry.catalog.database import Catalog
from adaptry.local import LocalRegistry

RARE = 60
VERSIONS_PER_ADAPTER = 10
QUERIES = (
    "",
    "base:org/common",
    "base:org/rare",
    "method:lora",
    "method:vera",
    "rank<=16",
    "rank>=512",
    "module:q_proj",
    "module:lm_head",
    "module:q_proj module:k_proj rank<=16",
    "module:q_proj module:lm_head",
    "metric.accuracy>=0.9",
    "metric.accuracy>=2",
    "max:metric.accuracy>=0.9",
    "alias:prod",
    "tag:checked",
    "tag:seldom",
    "namespace:team-7 method:lora",
    "name:team-7/adapter-7*",
    "tone",
    "unusual",
    "-tag:checked method:lora",
    "base:org/common method:lora rank<=16 module:q_proj metric.accuracy>=0.5 alias:prod",
    "base:org/rare method:lora rank<=64 module:q_proj metric.accuracy>=0.1",
)

# A term, and which versions have it: of `id` among `:n`; `u` is a number in [0, 1) that looks random.
_RANDOM = "(((id * 2654435761) % 4294967296) / 4294967296.0)"
_POSTINGS = {
    ("base", "org/common"): f"{_RANDOM} < 0.6",
    ("base", "org/rare"): "id % (:n / 60) = 3",
    ("method", "lora"): "id % 10 != 0",
    ("method", "vera"): "id % (:n / 60) = 5",
    ("module", "q_proj"): "1",
    ("module", "v_proj"): "1",
    ("module", "k_proj"): "id % 2 = 0",
    ("module", "lm_head"): "id % (:n / 60) = 7",
    ("alias", "prod"): "id % 2 = 1",
    ("tag", "checked"): "id % 5 = 0",
    ("tag", "seldom"): "id % (:n / 60) = 11",
    ("word", "tone"): "id % 3 = 0",
    ("word", "unusual"): "id % (:n / 60) = 13",
    ("visibility", "private"): "1",
    ("state", "active"): "1",
}


def fill(path: Path, count: int) -> None:
    """A catalog of `count` versions at `path`."""
    Catalog.at(path).close()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous=OFF")
    database.execute("PRAGMA foreign_keys=OFF")
    database.execute("PRAGMA cache_size=-400000")
    indexes = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    database.execute("BEGIN")
    for statement in _rows():
        database.execute(statement, {"n": count, "a": max(1, count // VERSIONS_PER_ADAPTER)})
    _fill_postings(database, count)
    database.execute("COMMIT")
    for _, sql in indexes:
        database.execute(sql)
    database.close()


def _rows() -> Iterator[str]:
    numbers = "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {limit})"
    yield (
        "INSERT INTO adapters (id, name, namespace, description, tags, visibility, created_at, updated_at,"
        " next_number, downloads) "
        + numbers.format(limit=":a")
        + " SELECT id, 'team-' || (id % 10) || '/adapter-' || id, 'team-' || (id % 10), '', '[]', 'private',"
        " '2026-01-01', '2026-01-01', 11, 0 FROM ids"
    )
    yield (
        "INSERT INTO versions (id, adapter_id, number, digest, state, created_at, created_by, method, rank, targets,"
        " traits, parameters, size, weights, base_status, findings, downloads) "
        + numbers.format(limit=":n")
        + " SELECT id, 1 + id % :a, 1 + id / :a, printf('%064x', id), 'active', '2026-01-01', 'bench', 'lora',"
        " CASE WHEN id % (:n / 60) = 1 THEN 512 ELSE 4 << (id % 5) END, '[\"q_proj\", \"v_proj\"]', '[]',"
        " id % 1000000, id % 1000000000, printf('%064x', id), 'verified', 0, id % 100 FROM ids"
    )
    yield (
        "INSERT INTO metric_summaries SELECT id, 'accuracy', v, v, v FROM"
        f" (SELECT id, CASE WHEN id % (:n / 60) = 9 THEN 2.5 ELSE {_RANDOM} END AS v FROM versions)"
    )
    yield (
        "INSERT INTO aliases SELECT adapter_id, 'prod', max(id), 1, '2026-01-01', 'bench' FROM versions GROUP BY adapter_id"
    )


def _fill_postings(database: sqlite3.Connection, count: int) -> None:
    for number, ((field, text), condition) in enumerate(_POSTINGS.items(), start=1):
        database.execute("INSERT INTO terms VALUES (?, ?, ?)", (number, field, text))
        database.execute(
            f"INSERT INTO postings SELECT {number}, id FROM versions WHERE {condition}",
            {"n": count} if ":n" in condition else {},
        )
    of_namespace = 1000
    for number in range(10):
        database.execute(
            "INSERT INTO terms VALUES (?, 'namespace', ?)", (of_namespace + number, f"team-{number}")
        )
    database.execute(
        "INSERT INTO postings SELECT 1000 + adapter_id % 10, id FROM versions ORDER BY adapter_id % 10, id"
    )
    database.execute("INSERT INTO terms SELECT 10000 + id, 'name', name FROM adapters")
    database.execute(
        "INSERT INTO postings SELECT 10000 + adapter_id, id FROM versions ORDER BY adapter_id, id"
    )


def medians(registries: Sequence[LocalRegistry], query: str, times: int) -> list[tuple[float, int]]:
    """For each registry the median time of a search in milliseconds, and how many it finds.

    They take turns, so that a busy machine slows both.
    """
    found = [len(registry.search(query).items) for registry in registries]
    spent: list[list[float]] = [[] for _ in registries]
    for _ in range(times):
        for registry, series in zip(registries, spent, strict=True):
            started = time.perf_counter()
            registry.search(query)
            series.append((time.perf_counter() - started) * 1000)
    return [(statistics.median(series), count) for series, count in zip(spent, found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 1_000_000))
    parser.add_argument("--folder", type=Path, help="keep and reuse the catalogs here")
    parser.add_argument("--times", type=int, default=31)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        registries = []
        for size in given.sizes:
            path = folder / f"search-{size}.sqlite"
            if not path.exists():
                started = time.perf_counter()
                fill(path, size)
                print(f"filled {size:,} versions in {time.perf_counter() - started:.0f} s")
            registries.append(LocalRegistry(Catalog.at(path), MemoryBlobs()))
        print(f"{'p50 in ms':>10} {given.sizes[0]:>9,} {given.sizes[1]:>11,}  ratio  found  query")
        worst = 0.0
        for query in QUERIES:
            (small, few), (large, many) = medians(registries, query, given.times)
            worst = max(worst, large / small)
            print(
                f"{'':>10} {small:>9.2f} {large:>11.2f}  {large / small:>5.2f}  {few:>2}/{many:<2}  {query or '(all)'}"
            )
        print(f"worst ratio {worst:.2f}")


if __name__ == "__main__":
    main()
