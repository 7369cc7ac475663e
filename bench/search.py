"""Compares a search among a million versions with one among a thousand.

    python bench/search.py [--database sqlite|postgresql] [--sizes 1000 1000000] [--only TEXT] [--cpu]

Asks two catalogs (`bench/filled.py`) the same questions through `LocalRegistry.search`, and prints the median
time of each and their ratio: of the first page, whether it is full or ends at the limit of what a request
reads (`+`). A query may end with ` by ` and an order. `--cpu` measures processor time instead, which on
SQLite includes everything and is comparable on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from figures import note
from filled import filled

from adaptry.registry.records import Page, VersionInfo
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
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
    "tag:checked OR method:vera",
    "base:org/rare OR tag:seldom",
    "(rank>=512 OR metric.accuracy>=2) method:lora",
    "-(tag:checked OR rank<=16)",
    "alpha>=10",
    "findings>0",
    "finding:base_unknown",
    "finding:nan_weights",
    "eval.gsm8k.exact_match>=0.7",
    "eval.seldom.exact_match>=0.1",
    "has:metric.accuracy has:eval.gsm8k",
    "has:alias",
    "licence:mit",
    "loaded:*",
    "created>=2025-06-01",
    "created<2023-06-01",
    "updated<2026-02-01",
    "tag:checked -tag:checked",
    "(tag:checked OR method:lora) module:none*",
    "rank<=16 by name",
    "rank<=16 by created",
    "rank<=16 by updated",
    "tag:checked by size",
    "tag:checked by rank",
    "namespace:team-7 by name",
    "alias:prod by metric.accuracy",
    "metric.accuracy>=0.5 by metric.accuracy",
    "method:lora by eval.gsm8k.exact_match",
    "tag:seldom by eval.gsm8k.exact_match",
    "tag:checked -tag:checked by size",
)
MEASURED = "base:org/rare method:lora rank<=64 module:q_proj metric.accuracy>=0.1"
"""A search by base, rank and metric, as `table.py` shows it."""


def first_page(registry: LocalRegistry, query: str) -> Page[VersionInfo]:
    text, _, sort = query.partition(" by ")
    return registry.versions.search(text, sort=sort or "newest")


def medians(
    registries: Sequence[LocalRegistry], query: str, times: int, clock: Callable[[], float]
) -> list[tuple[float, str]]:
    """For each registry the median time of a search in milliseconds, and the number of versions that it
    finds.

    They take turns, so that a busy machine slows both.
    """
    pages = [first_page(registry, query) for registry in registries]
    spent: list[list[float]] = [[] for _ in registries]
    for _ in range(times):
        for registry, series in zip(registries, spent, strict=True):
            started = clock()
            first_page(registry, query)
            series.append((clock() - started) * 1000)
    found = [f"{len(page.items)}{'+' if page.next and len(page.items) < 50 else ''}" for page in pages]
    return [(statistics.median(series), count) for series, count in zip(spent, found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 1_000_000))
    parser.add_argument("--times", type=int, default=31)
    parser.add_argument("--only", default="", help="queries that contain this text")
    parser.add_argument("--cpu", action="store_true", help="measure processor time")
    given = parser.parse_args()
    clock = time.process_time if given.cpu else time.perf_counter
    with filled(given.database, given.sizes) as urls:
        registries = [LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs())) for url in urls.values()]
        print(f"{'p50 in ms':>10} {given.sizes[0]:>9,} {given.sizes[1]:>11,}  ratio  found  query")
        worst = 0.0
        for query in (query for query in QUERIES if given.only in query):
            (small, few), (large, many) = medians(registries, query, given.times, clock)
            if query == MEASURED:
                note("search", [large / 1e3])
            worst = max(worst, large / small)
            print(
                f"{'':>10} {small:>9.2f} {large:>11.2f}  {large / small:>5.2f}  {few:>3}/{many:<3} "
                f" {query or '(all)'}"
            )
        print(f"worst ratio {worst:.2f}")
        for registry in registries:
            registry.close()


if __name__ == "__main__":
    main()
