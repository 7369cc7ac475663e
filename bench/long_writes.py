"""Measures for how long a change of a large adapter keeps other writers waiting.

    python bench/long_writes.py [--database sqlite|postgresql] [--size 10000] [--only tag ...]

A catalog (`bench/filled.py`) has one adapter with `--size` versions. While one process changes it, another
one edits a small adapter every 10 ms or so, as a client of another server would. Shown are the seconds that
the change took, the processor seconds of its process, and the longest edit of the other process in
milliseconds, beside that of an equally long time without a change.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from filled import fill

from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import postgres_server

LARGE, RENAMED, MOVED = map(AdapterName.parse, ("team-0/adapter-1", "team-0/renamed", "team-1/moved"))
SMALL = AdapterName.parse("other/small")
WORDS = " ".join(f"word{number}" for number in range(20))
PAUSE = 0.01  # seconds between two edits of the small adapter
Change = Callable[[LocalRegistry], object]

CHANGES: dict[str, Change] = {
    "a tag": lambda registry: registry.adapters.edit(LARGE, AdapterEdit(tags=("new",))),
    "20 words": lambda registry: registry.adapters.edit(LARGE, AdapterEdit(description=WORDS)),
    "20 other words": lambda registry: registry.adapters.edit(
        LARGE, AdapterEdit(description=WORDS.replace("word", "other"))
    ),
    "public": lambda registry: registry.adapters.edit(LARGE, AdapterEdit(visibility="public")),
    "rename": lambda registry: registry.adapters.rename(LARGE, RENAMED),
    "move to another namespace": lambda registry: registry.adapters.rename(RENAMED, MOVED),
    "delete": lambda registry: registry.adapters.delete(MOVED),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", default=[])
    asked = parser.parse_args()
    with ExitStack() as stack:
        url = f"sqlite:///{Path(stack.enter_context(TemporaryDirectory())) / 'catalog.sqlite'}"
        if asked.database == "postgresql":
            url = stack.enter_context(postgres_server()).database()
        fill(url, asked.size, namespaces=1, versions_per_adapter=asked.size)
        registry = stack.enter_context(opened(url))
        registry.adapters.create(SMALL, AdapterEdit())
        registry.aliases.remove(LARGE, "prod", 1)
        registry.adapters.edit(LARGE, AdapterEdit(tags=("first",)))  # sets terms that `fill` has not made
        changes = {name: one for name, one in CHANGES.items() if not asked.only or name in asked.only}
        print(
            f"{asked.database}, {asked.size:,} versions: seconds, processor seconds, longest other edit in ms"
        )
        for name, change in changes.items():
            show(name, url, registry, change)


def show(name: str, url: str, registry: LocalRegistry, change: Change) -> None:
    mine, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=edit_small, args=(url, other))
    process.start()
    mine.recv()
    began, used = time.perf_counter(), time.process_time()
    change(registry)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    mine.send("change is over")
    during = mine.recv()
    time.sleep(seconds)
    mine.send("end")
    print(f"{seconds:8.2f} {used:8.2f} {during:8.0f} {mine.recv():8.0f}  {name}", flush=True)
    process.join()


def edit_small(url: str, parent: Connection) -> None:
    """Edits the small adapter until the parent process asks for the longest time of an edit, twice."""
    with opened(url) as registry:
        registry.adapters.edit(SMALL, AdapterEdit(description="first"))
        parent.send("ready")
        for _ in range(2):
            longest = 0.0
            while not parent.poll():
                began = time.perf_counter()
                registry.adapters.edit(SMALL, AdapterEdit(description=f"{began}"))
                longest = max(longest, time.perf_counter() - began)
                time.sleep(PAUSE)
            parent.recv()
            parent.send(longest * 1e3)


def opened(url: str) -> LocalRegistry:
    return LocalRegistry(RegistryContext(Catalog(url, busy_timeout=600), MemoryBlobs()))


if __name__ == "__main__":
    main()
