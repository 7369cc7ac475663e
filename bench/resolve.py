"""Measures how many aliases a server resolves per second, and how long one takes.

    python bench/resolve.py [--size 1000000] [--seconds 3] [--clients 1 8 32] [--rounds 5]
        [--servers 1 2 4] [--database sqlite|postgresql]

A registry of `--size` versions (`bench/filled.py`) is served by each number of processes in `--servers`.
Clients with persistent connections (`bench/http_load.py`) resolve the aliases of a thousand adapters, resolve
one alias with the `ETag` of its answer (304), and search by base, rank and metric, with a new value each time
or always with the same one. The limit is FastAPI and sqlite3 on the same file, without tokens and checks
(`peers/fastapi_sqlite.py`); for PostgreSQL there is none. All run in turns, so that a busy machine slows them
equally. Shown are medians of the rounds, with the lowest and highest rate, and the processor time per
request of the servers and of wrk.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import urllib3
from figures import note
from filled import adapter_of, fill
from http_load import Load, load
from search import MEASURED
from served import served

from adaptry.testing.postgres import postgres_server

PEER = "FastAPI + sqlite3 (limit)"
LIMIT = Path(__file__).parent / "peers" / "fastapi_sqlite.py"
ADAPTERS = 1000
SEARCHES = 500  # more different ones than a server caches answers for


@dataclass(frozen=True)
class Target:
    """The requests, and the server's process."""

    url: str
    process: int
    paths: Sequence[str]
    headers: Mapping[str, str] = field(default_factory=dict)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size", type=int, default=1_000_000)
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--servers", type=int, nargs="+", default=[1])
    arguments.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = Path(folder) / "data"
        data.mkdir()
        url = f"sqlite:///{data / 'catalog.sqlite'}"
        if options.database == "postgresql":
            url = stack.enter_context(postgres_server()).database()
        fill(url, options.size)
        for servers in options.servers:
            with ExitStack() as running:
                targets = dict(start(running, data, url, options.size, servers))
                for clients in options.clients:
                    print(
                        f"{options.size:,} versions in {options.database}, {clients} clients, {servers}"
                        " server process(es)"
                    )
                    measure(targets, clients, options.seconds, options.rounds)


def start(
    stack: ExitStack, data: Path, catalog: str, size: int, servers: int
) -> Iterator[tuple[str, Target]]:
    paths = [f"/api/v1/adapters/{adapter_of(n * 7919, size)}/versions/prod" for n in range(ADAPTERS)]
    is_sqlite = catalog.startswith("sqlite")
    place = () if is_sqlite else ("--catalog", catalog)
    server = stack.enter_context(served(data, "--workers", str(servers), *place))
    bearer = {"Authorization": f"Bearer {server.token}"}
    tag = urllib3.request("GET", server.url + paths[0], headers=bearer, timeout=60).headers["ETag"]
    if is_sqlite:
        url, process = stack.enter_context(limit(data / "catalog.sqlite"))
        yield PEER, Target(url, process, paths)
    yield "resolve", Target(server.url, server.process, paths, bearer)
    yield (
        "resolve, nothing new (304)",
        Target(server.url, server.process, paths[:1], {**bearer, "If-None-Match": tag}),
    )
    different = [MEASURED.replace(">=0.1", f">=0.1{number:03}") for number in range(SEARCHES)]
    searches = [f"/api/v1/search?q={quote(text)}" for text in different]
    yield "search", Target(server.url, server.process, searches, bearer)
    yield "search, repeated", Target(server.url, server.process, searches[:1], bearer)
    yield "healthz", Target(server.url, server.process, ["/healthz"])


@contextmanager
def limit(catalog: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, str(LIMIT), str(catalog)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def measure(targets: Mapping[str, Target], clients: int, seconds: float, rounds: int) -> None:
    loads: dict[str, list[Load]] = defaultdict(list)
    busy: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, target in targets.items():
            before, began = processor_seconds(target.process), time.perf_counter()
            found = load(target.url, target.paths, target.headers, clients, seconds)
            lasted = time.perf_counter() - began
            loads[name].append(found)
            busy[name].append((processor_seconds(target.process) - before) / (found.rate * lasted))
    limits = [each.rate for each in loads.get(PEER, ())]
    answered = [each.rate for each in loads["resolve"]]
    note(f"resolve-{clients}", answered, limits)
    note(f"resolve-{clients}-304", [each.rate for each in loads["resolve, nothing new (304)"]], answered)
    note(f"search-{clients}", [each.rate for each in loads["search"]])
    note(f"search-{clients}-repeated", [each.rate for each in loads["search, repeated"]])
    note(f"resolve-{clients}-p99", [each.p99 / 1e3 for each in loads["resolve"]])
    note(f"search-{clients}-median", [each.median / 1e3 for each in loads["search"]])
    for name, found in loads.items():
        rates = sorted(each.rate for each in found)
        rate = statistics.median(rates)
        beside = f"   {rate / statistics.median(limits):.2f} of the limit" if limits else ""
        print(
            f"  {name:<28}{rate:7,.0f} / s ({rates[0]:,.0f} to {rates[-1]:,.0f})"
            f"   p50 {statistics.median(each.median for each in found):6.2f} ms"
            f"   p99 {statistics.median(each.p99 for each in found):6.2f} ms"
            f"   {statistics.median(busy[name]) * 1e6:5.0f} µs of processor, wrk"
            f" {statistics.median(each.busy / each.rate for each in found) * 1e6:.0f}{beside}",
            flush=True,
        )


def processor_seconds(process: int) -> float:
    """The processor seconds of the process and its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    children = [
        child
        for path in Path(f"/proc/{process}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return (int(fields[11]) + int(fields[12])) / 100 + sum(processor_seconds(int(each)) for each in children)


if __name__ == "__main__":
    main()
