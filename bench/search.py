"""How much slower is a search among a million versions than among a thousand?

    python bench/search.py [--database sqlite|postgresql] [--sizes 1000 1000000] [--explain]

Asks two catalogs (`bench/filled.py`) the same questions through `LocalRegistry.search`, and prints the median
time of each and their ratio; with `--explain` also how the database finds the answer in the larger one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from filled import filled

from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import search
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.term_windows import TermWindows
from adaptry.storage.local import LocalRegistry, RegistryContext

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


def medians(registries: Sequence[LocalRegistry], query: str, times: int) -> list[tuple[float, int]]:
    """For each registry the median time of a search in milliseconds, and how many it finds.

    They take turns, so that a busy machine slows both.
    """
    found = [len(registry.versions.search(query).items) for registry in registries]
    spent: list[list[float]] = [[] for _ in registries]
    for _ in range(times):
        for registry, series in zip(registries, spent, strict=True):
            started = time.perf_counter()
            registry.versions.search(query)
            series.append((time.perf_counter() - started) * 1000)
    return [(statistics.median(series), count) for series, count in zip(spent, found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 1_000_000))
    parser.add_argument("--times", type=int, default=31)
    parser.add_argument("--explain", action="store_true")
    given = parser.parse_args()
    with filled(given.database, given.sizes) as urls:
        registries = [LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs())) for url in urls.values()]
        print(f"{'p50 in ms':>10} {given.sizes[0]:>9,} {given.sizes[1]:>11,}  ratio  found  query")
        worst = 0.0
        for query in QUERIES:
            (small, few), (large, many) = medians(registries, query, given.times)
            worst = max(worst, large / small)
            print(
                f"{'':>10} {small:>9.2f} {large:>11.2f}  {large / small:>5.2f}  {few:>2}/{many:<2} "
                f" {query or '(all)'}"
            )
            if given.explain:
                explain(registries[1].catalog, query)
        print(f"worst ratio {worst:.2f}")
        for registry in registries:
            registry.close()


def explain(catalog: Catalog, query: str) -> None:
    """The plan of the search's own statement (those before it look terms up)."""
    with catalog.read() as tx:
        plan = search.plan(tx, ReadScope(None), query)
        if isinstance(plan, TermWindows):
            print(f"{'':>12}windows of {len(plan.terms)} terms")
            return
        statement = plan.limit(51)
        dialect = tx.get_bind().dialect
        plain = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        how = "EXPLAIN QUERY PLAN" if dialect.name == "sqlite" else "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)"
        for row in tx.connection().exec_driver_sql(f"{how} {plain}"):
            print(f"{'':>12}{row[-1]}")


if __name__ == "__main__":
    main()
