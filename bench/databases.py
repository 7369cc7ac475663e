"""Compares the server's processor time per request on PostgreSQL with that on SQLite.

    python bench/databases.py [--size 20000] [--requests 200] [--pushes 60] [--rounds 3] [--only resolve ...]

Two servers run at once: one on a SQLite file, one on PostgreSQL, with the same number of versions. One client
sends the same requests to both in turns, over one connection. The time is that of the server and its
children, user and system, without the time of PostgreSQL's own processes. Before each turn a download is
counted, which is a commit, so nothing is cached from the turn before. The time that an idle server uses for
its periodic work is measured first and subtracted. Prints the medians of the rounds, and the lowest and
highest ratio of a round. Other programs on the machine can double the times.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from statistics import median
from urllib.parse import quote

import urllib3
from figures import note
from filled import adapter_of, fill
from hub_reads import SETTLING_SECONDS, Client, snapshot
from recorded_pushes import recorded
from search import MEASURED
from served import Served, served
from small_push import adapters

from adaptry.core.refs import Ref
from adaptry.testing.postgres import postgres_server

DATABASES = ("sqlite", "postgresql")
IDLE_SECONDS = 3
Requests = Sequence[bytes]


@dataclass
class Side:
    """A server, and a client that makes its requests."""

    server: Served
    client: Client

    @cached_property
    def idle(self) -> float:
        """Its processor time per second without requests."""
        began, used = time.perf_counter(), processor_seconds(self.server.process)
        time.sleep(IDLE_SECONDS)
        return (processor_seconds(self.server.process) - used) / (time.perf_counter() - began)

    def seconds(self, requests: Requests) -> float:
        """The server's processor time for each of the requests."""
        self.server.registry.versions.count_download(Ref.parse("hub/small-0@1"))
        time.sleep(SETTLING_SECONDS)
        idle = self.idle
        with Client(self.server) as client:  # servers close idle connections
            began, used = time.perf_counter(), processor_seconds(self.server.process)
            for request in requests:
                status = client.send(request)
                assert status in (200, 201, 304), (status, request[:200])
            used = processor_seconds(self.server.process) - used
            return (used - idle * (time.perf_counter() - began)) / len(requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--pushes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[])
    asked = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = {one: start(stack, Path(folder) / one, one, asked.size) for one in DATABASES}
        made = {one: kinds(side, Path(folder) / one, asked) for one, side in sides.items()}
        idle = " and ".join(f"{side.idle * 1e3:.1f}" for side in sides.values())
        print(f"{asked.size:,} versions; idle, the servers use {idle} ms of processor time per second")
        print("µs of the server's processor time per request, on SQLite and PostgreSQL")
        for kind in made["sqlite"]:
            if asked.only and not any(word in kind for word in asked.only):
                continue
            compare(kind, sides, {one: made[one][kind] for one in DATABASES}, asked.rounds)


def start(stack: ExitStack, folder: Path, database: str, size: int) -> Side:
    data = folder / "data"
    data.mkdir(parents=True)
    url, place = f"sqlite:///{data / 'catalog.sqlite'}", list[str]()
    if database == "postgresql":
        url = stack.enter_context(postgres_server()).database()
        place = ["--catalog", url]
    fill(url, size)
    server = stack.enter_context(served(data, *place))
    return Side(server, stack.enter_context(Client(server)))


def kinds(side: Side, folder: Path, asked: argparse.Namespace) -> Mapping[str, Callable[[], Requests]]:
    """For each kind of request, a function that makes the requests of one round."""
    server, some = side.server, range(asked.requests)
    names = [adapter_of(number * 7919, asked.size) for number in some]
    adapter = [f"/api/v1/adapters/{name}" for name in names]
    snapshots = [snapshot(server, folder / "hub" / str(number), number, "hub") for number in range(20)]
    new, fresh = count(), adapters(Path(tempfile.mkdtemp(dir=folder)))

    def get(*paths: str, extra: str = "") -> Callable[[], Requests]:
        made = [side.client.request("GET", path, extra) for path in paths]
        return lambda: made

    def searches() -> Requests:
        different = [MEASURED.replace(">=0.1", f">=0.1{next(new):05}") for _ in some]
        return [side.client.request("GET", f"/api/v1/search?q={quote(text)}") for text in different]

    def pushes(name: Callable[[int], str]) -> Requests:
        return recorded(server, ((next(fresh), name(next(new))) for _ in range(asked.pushes)))

    bearer = {"Authorization": f"Bearer {server.token}"}
    resolved = f"{adapter[0]}/versions/prod"
    tag = urllib3.request("GET", server.url + resolved, headers=bearer).headers["ETag"]
    hub = [side.client.request(*one) for requests in snapshots for one in requests]
    return {
        "resolve an alias": get(*(f"{one}/versions/prod" for one in adapter)),
        "nothing new since the last time (304)": get(
            *[resolved] * asked.requests, extra=f"If-None-Match: {tag}\r\n"
        ),
        "search, a different one each time": searches,
        "list an adapter's versions": get(*(f"{one}/versions" for one in adapter)),
        "list a page of adapters": get(*(f"/api/v1/adapters?namespace=team-{n % 10}" for n in some)),
        "one version with its details": get(
            *(f"/api/v1/adapters/hub/small-{n % 20}/versions/1/detail" for n in some)
        ),
        "one of the six requests of a Hub client": lambda: hub,
        "push of a small adapter": partial(pushes, lambda number: f"acme/tone-{number % 7}"),
        "push of a new adapter": partial(pushes, lambda number: f"acme/new-{number}"),
    }


def compare(
    kind: str, sides: Mapping[str, Side], made: Mapping[str, Callable[[], Requests]], rounds: int
) -> None:
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):  # the first is not counted
        for name in sorted(sides, reverse=number % 2 == 1):
            seconds = sides[name].seconds(made[name]())
            if number:
                found[name].append(seconds)
    ratios = [ours / least for ours, least in zip(found["postgresql"], found["sqlite"], strict=True)]
    note(f"postgresql-{kind}", found["postgresql"], found["sqlite"])
    sqlite, postgresql = (median(found[name]) * 1e6 for name in DATABASES)
    print(
        f"  {kind:<40}{sqlite:8,.0f} {postgresql:8,.0f}   {postgresql / sqlite:.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def processor_seconds(process: int) -> float:
    """The processor time of all threads of the process and its children, more precise than the kernel's
    ticks.
    """
    tasks = list(Path(f"/proc/{process}/task").iterdir())
    used = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    return used + sum(processor_seconds(int(child)) for child in children)


if __name__ == "__main__":
    main()
