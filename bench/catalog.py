"""Compares the speed of catalogs with a thousand and with a million versions, and of MLflow's registry.

    python bench/catalog.py [--databases sqlite postgresql] [--sizes 1000 100000 1000000] [--times 101]
    [--peer 100000]

The same operations on catalogs of each size (`bench/filled.py`), in turns so that a busy machine slows all
alike: the median and the 99th percentile in milliseconds, and the ratio of the largest to the smallest. Then
MLflow's own store (`make environments`), on the same kind of database with as many versions, in the same run;
ours does more in a push (bytes, headers, checks), and never less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from filled import adapter_of, filled

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import postgres_server
from adaptry.testing.samples import tiny_lora

MLFLOW = Path(".venvs/mlflow/bin/python")
PEER = Path(__file__).parent / "peers" / "mlflow_registry.py"
PUSHED = AdapterName.parse("team-0/pushed")
PUSHES = 30

Operation = Callable[[LocalRegistry, int, int], object]
"""An operation on a registry of this many versions; each number uses other data."""

OPERATIONS: Mapping[str, Operation] = {
    "resolve an alias": lambda registry, count, n: registry.versions.get(
        Ref.parse(f"{adapter_of(n * 7919, count)}@prod")
    ),
    "search, rare tag": lambda registry, count, n: registry.versions.search("tag:seldom"),
    "search, common tag": lambda registry, count, n: registry.versions.search("tag:checked"),
    "list a line's versions": lambda registry, count, n: registry.versions.list(
        AdapterName.parse(adapter_of(n * 7919, count))
    ),
    "list a page of lines": lambda registry, count, n: registry.adapters.list(),
    "search, structure": lambda registry, count, n: registry.versions.search(
        "base:org/common rank<=16 module:k_proj"
    ),
    "search, metric": lambda registry, count, n: registry.versions.search("metric.accuracy>=0.9"),
    "search, rare in structure": lambda registry, count, n: registry.versions.search(
        "module:lm_head method:lora rank<=64 metric.accuracy>=0.1"
    ),
    "search, a word": lambda registry, count, n: registry.versions.search("unusual"),
}
Series = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"]
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--times", type=int, default=101)
    parser.add_argument(
        "--peer", type=int, nargs="*", default=[1_000, 100_000], help="sizes of MLflow's registry"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        loras = [open_dir(tiny_lora(Path(scratch) / str(seed), seed=seed)) for seed in range(PUSHES)]
        for database in given.databases:
            ours = measured(database, given.sizes, given.times, loras)
            show(f"{database}: ours", ours)
            if not given.peer:
                continue
            if MLFLOW.exists():
                show(
                    f"{database}: MLflow's",
                    {size: mlflow(database, size, given.times) for size in given.peer},
                )
            else:
                print("MLflow is not installed: make environments")


def measured(database: str, sizes: Sequence[int], times: int, loras: Sequence[Adapter]) -> dict[int, Series]:
    """The seconds of every call, by size and operation."""
    with filled(database, sizes) as urls, ExitStack() as stack:
        registries = {
            size: LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs())) for size, url in urls.items()
        }
        for registry in registries.values():
            stack.callback(registry.close)
        spent: dict[int, Series] = {size: {what: [] for what in OPERATIONS} for size in sizes}
        for what, operation in OPERATIONS.items():
            for number in range(-2, times):
                for size, registry in registries.items():
                    began = time.perf_counter()
                    operation(registry, size, number)
                    if number >= 0:
                        spent[size][what].append(time.perf_counter() - began)
        for lora in loras:
            for size, registry in registries.items():
                began = time.perf_counter()
                push(registry, lora, PUSHED)
                spent[size].setdefault("push a version", []).append(time.perf_counter() - began)
        return spent


def mlflow(database: str, size: int, times: int) -> Series:
    """The same for MLflow's store, in a separate process and environment."""
    with ExitStack() as stack:
        if database == "sqlite":
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/mlflow.sqlite"
        else:
            server = stack.enter_context(postgres_server())
            url = server.url(server.create_empty()).replace("postgresql:", "postgresql+psycopg2:")
        command = [str(MLFLOW), str(PEER), url, str(size), str(times)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        series: Series = json.loads(run.stdout.splitlines()[-1])
        return series


def show(title: str, spent: Mapping[int, Series]) -> None:
    print(
        f"\n{title}, ms"
        + " " * (32 - len(title))
        + "".join(f"{size:>12,} p50    p99" for size in spent)
        + "   ratio"
    )
    sizes = list(spent)
    for what in spent[sizes[0]]:
        medians = [statistics.median(spent[size][what]) * 1e3 for size in sizes]
        row = "".join(
            f"{median:>16.2f}"
            f" {1e3 * sorted(spent[size][what])[int(0.99 * (len(spent[size][what]) - 1))]:>6.1f}"
            for size, median in zip(sizes, medians, strict=True)
        )
        print(f"  {what:<34}{row}   {medians[-1] / medians[0]:>5.2f}", flush=True)


if __name__ == "__main__":
    main()
