"""Measures whether a hundred thousand adapters in one namespace slow anything down.

    python bench/namespace.py [--sizes 100 100000] [--times 31]

Two catalogs (`bench/filled.py`) have one namespace each, with `--sizes` adapters of one version. The same
calls of `LocalRegistry` run on both in turns: a page of adapters, a page in the middle, searches within the
namespace, and a push. Shown are medians of processor time in milliseconds, which a busy machine affects less.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from filled import fill

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.samples import tiny_lora

Call = Callable[[LocalRegistry], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=(100, 100_000))
    parser.add_argument("--times", type=int, default=31)
    asked = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with tempfile.TemporaryDirectory() as folder:
        registries = []
        for size in asked.sizes:
            url = f"sqlite:///{Path(folder) / str(size)}.sqlite"
            fill(url, size, namespaces=1, versions_per_adapter=1)
            registries.append(LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs())))
        print(f"{asked.sizes[0]:>10,} {asked.sizes[1]:>11,}  ratio", flush=True)
        for what, call in calls(Path(folder)).items():
            show(what, registries, call, asked.times)
        for registry in registries:
            registry.close()


def calls(folder: Path) -> dict[str, Call]:
    middle: dict[int, str | None] = {}
    seeds = count(1)

    def page_in_the_middle(registry: LocalRegistry) -> object:
        if id(registry) not in middle:
            middle[id(registry)] = registry.adapters.list(limit=50).next
        return registry.adapters.list(middle[id(registry)], limit=50)

    def push_one(registry: LocalRegistry) -> object:
        number = next(seeds)
        adapter = open_dir(tiny_lora(folder / f"pushed-{number}", seed=number))
        return push(registry, adapter, f"team-0/new-{number % 3}")

    return {
        "a page of adapters": lambda registry: registry.adapters.list(limit=50),
        "the next page": page_in_the_middle,
        "search namespace:team-0": lambda registry: registry.versions.search("namespace:team-0"),
        "search namespace:team-0 tag:seldom": lambda registry: registry.versions.search(
            "namespace:team-0 tag:seldom"
        ),
        "search name:team-0/adapter-5*": lambda registry: registry.versions.search("name:team-0/adapter-5*"),
        "push a version": push_one,
    }


def show(what: str, registries: Sequence[LocalRegistry], call: Call, times: int) -> None:
    spent: list[list[float]] = [[] for _ in registries]
    for number in range(times + 1):
        for registry, series in zip(registries, spent, strict=True):
            began = time.process_time()
            call(registry)
            if number:  # the first round warms up
                series.append((time.process_time() - began) * 1e3)
    small, large = map(statistics.median, spent)
    print(f"{small:>10.2f} {large:>11.2f}  {large / small:>5.2f}  {what}", flush=True)


if __name__ == "__main__":
    main()
