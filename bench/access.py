"""Measures the cost of rights and quotas with a million versions.

    python bench/access.py [--database sqlite|postgresql] [--sizes 1000 1000000]

Two catalogs (`bench/filled.py`) with 200 namespaces get the same queries from an administrator and from a
reader of three namespaces; then the cost of a quota's check, of the figures for `/metrics`, and of counting
all that is stored again, as `verify` does. Medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from filled import filled
from sqlalchemy import text

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.core.quotas import EVERY
from adaptry.core.refs import AdapterName
from adaptry.registry.quotas import QuotaRequest
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import gauge_values, stored_use
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.quotas import refuse_session, require_version

NAMESPACES = 200
READ = ("team-7", "team-70", "team-170")
READER = Identity("ann", tuple(Grant("viewer", Resource.parse(name)) for name in READ), principal=1)
WRITER = Identity("ann", (Grant("contributor", Resource.parse("team-7")),), principal=1)
NAME = AdapterName.parse("team-7/adapter-7")
QUERIES = ("", "method:lora rank<=16", "base:org/rare", "metric.accuracy>=0.9", "alias:prod tag:checked")

Call = Callable[[LocalRegistry], object]


def median(registry: LocalRegistry, call: Call, times: int) -> float:
    call(registry)
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        call(registry)
        spent.append((time.perf_counter() - started) * 1000)
    return statistics.median(spent)


def show(what: str, registries: Sequence[LocalRegistry], call: Call, times: int) -> None:
    found = [median(registry, call, times) for registry in registries]
    print(f"{found[0]:>10.3f} {found[1]:>11.3f}  {found[1] / found[0]:>6.2f}  {what}", flush=True)


def as_reader(call: Call) -> Call:
    return lambda registry: call(registry.on_behalf_of(READER))


def store_files(registry: LocalRegistry) -> None:
    """Stores a file for each version, as a file of its adapter."""
    with registry.catalog.write() as tx:
        tx.execute(
            text(
                "INSERT INTO files (owner, digest, size, stored_by) SELECT adapters.name, versions.digest,"
                " 1000, 'ann' FROM versions JOIN adapters ON adapters.id = versions.adapter_id"
            )
        )
    with registry.catalog.write() as tx:
        stored_use.rebuild(tx)


def count_again(registry: LocalRegistry) -> object:
    with registry.catalog.read() as tx:
        return stored_use.computed(tx)


def read_figures(registry: LocalRegistry) -> object:
    with registry.catalog.read() as tx:
        return gauge_values.read(tx, 500)


def check_upload(registry: LocalRegistry) -> object:
    with registry.catalog.write_nondurable() as tx:
        return refuse_session(registry.on_behalf_of(WRITER).context, tx, NAME, Digest.of(b"x"), 1)


def check_version(registry: LocalRegistry) -> object:
    with registry.catalog.read_prepared() as tx:
        return require_version(registry.on_behalf_of(WRITER).context, tx, NAME.namespace)


def empty_write(registry: LocalRegistry) -> object:
    with registry.catalog.write_nondurable():
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 1_000_000))
    parser.add_argument("--times", type=int, default=31)
    given = parser.parse_args()
    with filled(given.database, given.sizes, NAMESPACES) as urls:
        registries = [LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs())) for url in urls.values()]
        for registry in registries:
            registry.principals.create("user", "ann")
            store_files(registry)
        print(f"{given.sizes[0]:>10,} {given.sizes[1]:>11,}   ratio  p50 in ms", flush=True)

        def list_all(registry: LocalRegistry) -> object:
            return registry.adapters.list()

        show("list adapters, administrator", registries, list_all, given.times)
        show("list adapters, reader of 3 of 200 namespaces", registries, as_reader(list_all), given.times)
        for query in QUERIES:

            def search(registry: LocalRegistry, query: str = query) -> object:
                return registry.versions.search(query)

            show(f"search {query or '(all)'}, administrator", registries, search, given.times)
            show(f"search {query or '(all)'}, reader", registries, as_reader(search), given.times)
        show("an empty write transaction", registries, empty_write, given.times)
        show("may an upload be opened? no limit set", registries, check_upload, given.times)
        for registry in registries:
            for scope in ("namespace", "principal"):
                registry.quotas.set(
                    QuotaRequest(scope=scope, name=EVERY, bytes=1 << 50, versions=1 << 50, uploads=1000)
                )
        show("may an upload be opened? with limits", registries, check_upload, given.times)
        show("may a version be pushed? with limits", registries, check_version, given.times)
        show("figures for /metrics", registries, read_figures, 5)
        show("count all that is stored again (verify)", registries, count_again, 3)
        for registry in registries:
            registry.close()


if __name__ == "__main__":
    main()
