"""Measures every page of a registry with a million versions, for an administrator, members, and strangers.

    python bench/pages.py [--database sqlite|postgresql] [--size 1000000] [--times 21] [--only TEXT]
    [--keep FOLDER]

A catalog of that size (`bench/filled.py`, one namespace of a hundred thousand adapters), with an adapter,
base, fleet and log that are far larger than usual (`bench/heavy_rows.py`), behind a real server. For each
page and visitor: the median and the 99th percentile in milliseconds, as a client on the same machine sees
them over a kept connection; processor time of server and client; the SQL statements of a request; and the
bytes of the page. Asked: less than 100 ms. On a busy machine, compare the processor time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import urllib3
from filled import fill
from heavy_rows import BASE, MANY, WORKERS, add_heavy_rows
from sqlalchemy import Engine, event

from adaptry.storage.connect import open_local
from adaptry.testing.postgres import postgres_server
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

ASKED = 100.0
_HTML = "text/html"
_QUERIES = ("namespace:team-0", "method:vera", "metric.accuracy>=0.9", "base:org/model state:*", "unusual")
_SORTS = ("name", "size", "rank", "metric.accuracy")
_SIX = urlencode([("ref", f"{MANY}@{number}") for number in (1, 2, 3, 2, 3, 2)])
_AUDIT = ("actor=user-7", "action=alias.moved", "resource=acme/adapter-7", "outcome=denied", "actor=nobody")
_SETTINGS = "/-/settings"
_ACME = f"{_SETTINGS}/namespaces/acme"
ADDRESSES = (
    "/",
    *(f"/?{urlencode({'q': query})}" for query in _QUERIES),
    *(f"/?{urlencode({'sort': sort})}" for sort in _SORTS),
    f"/?{urlencode({'q': 'namespace:team-0', 'sort': 'metric.accuracy'})}",
    "/-/complete?q=name:team-0/adapter-9",
    f"/{MANY}",
    f"/{MANY}?version=1",
    f"/-/adapters/{MANY}/2/fit",
    f"/-/adapters/{MANY}/2/lineage",
    f"/-/adapters/{MANY}/3/promote",
    f"/-/aliases/{MANY}/prod",
    f"/-/aliases/{MANY}/prod/rollback",
    f"/-/compare?{_SIX}",
    f"/-/compare/weights?{_SIX}",
    f"/-/combine?ref={MANY}@2&ref={MANY}@3&method=ties",
    "/-/bases",
    f"/-/base?key={BASE}",
    f"/-/base/copies?key={BASE}",
    "/-/fleet",
    "/-/jobs",
    "/-/jobs?state=failed",
    "/-/jobs/job-000007",
    "/-/activity",
    *(f"/-/activity?{each}" for each in _AUDIT),
    _SETTINGS,
    f"{_SETTINGS}/tokens",
    f"{_SETTINGS}/users",
    f"{_SETTINGS}/groups",
    f"{_SETTINGS}/issuers",
    f"{_SETTINGS}/limits",
    f"{_ACME}/members",
    f"{_ACME}/service-accounts",
    f"{_ACME}/policies",
    f"{_ACME}/webhooks",
    f"{_ACME}/webhooks/1",
    f"{_ACME}/limits",
    f"{_SETTINGS}/adapters/{MANY}/policies?history=prod",
    f"{_SETTINGS}/adapters/{MANY}/publishers",
    "/-/docs",
    "/-/sign-in",
)


@dataclass(frozen=True)
class Visitor:
    """A browser's headers: those of a session, or without one."""

    name: str
    headers: dict[str, str]


def visitor(server: Server, name: str, token: str | None) -> Visitor:
    if token is None:
        return Visitor(name, {"Accept": _HTML})
    form = urlencode({"token": token, "next": "/"}).encode()
    headers = {"Origin": server.url, "Content-Type": "application/x-www-form-urlencoded", "Accept": _HTML}
    answer = server.call("POST", "/-/sign-in", form, token=None, headers=headers)
    return Visitor(name, {"Accept": _HTML, "Cookie": answer.headers["Set-Cookie"].partition(";")[0]})


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    found: list[str] = []

    def keep(connection: object, cursor: object, statement: str, *rest: object) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", keep)


def measure(server: Server, who: Visitor, address: str, times: int) -> tuple[str, bool]:
    """A line of the table, and whether the page is fast enough."""
    pool = urllib3.PoolManager(retries=False, timeout=120)

    def get() -> tuple[float, int, int]:
        began = time.perf_counter()
        answer = pool.request("GET", server.url + address, headers=who.headers, redirect=False)
        return (time.perf_counter() - began) * 1e3, answer.status, len(answer.data)

    first, status, size = get()
    with counted_statements() as statements:
        get()
    rounds, began = times if first < 2_000 else 3, time.process_time()
    spent = [get()[0] for _ in range(rounds)]
    cpu = (time.process_time() - began) / rounds * 1e3
    median, high = statistics.median(spent), sorted(spent)[int(0.99 * (len(spent) - 1))]
    is_fast = median < ASKED or status >= 400
    flag = "" if is_fast else "  SLOW"
    figures = f"{median:>9.1f}{high:>9.1f}{cpu:>9.1f}{len(statements):>6}{size:>9,}"
    return f"{who.name:<14}{status:>4}{figures}  {address}{flag}", is_fast


def prepare(database: str, size: int, folder: Path, stack: ExitStack) -> str:
    """The address of the filled catalog: on SQLite, that of an earlier run if the folder has it."""
    data = folder / "data"
    if database == "sqlite":
        url, catalog = f"sqlite:///{data / 'catalog.sqlite'}", None
    else:
        url = catalog = stack.enter_context(postgres_server()).database()
    if data.exists():
        return url
    data.mkdir(parents=True)
    began = time.perf_counter()
    fill(url, size, 1)
    registry = open_local(data, catalog=catalog)
    add_heavy_rows(registry, url, folder)
    registry.close()
    print(f"{database}: filled {size:,} versions, {time.perf_counter() - began:.0f} s", flush=True)
    return url


def show(server: Server, addresses: Sequence[str], times: int) -> list[str]:
    """Prints the table. Returns the rows of pages that are too slow."""
    visitors = (
        visitor(server, "administrator", server.admin),
        visitor(server, "member, all", server.token("mia", "owner", ("acme", "team-0"))),
        visitor(server, "member, acme", server.token("tom", "contributor", ("acme",))),
        visitor(server, "anonymous", None),
    )
    print(
        f"{'visitor':<14}{'':>4}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'SQL':>6}{'bytes':>9}  page",
        flush=True,
    )
    slow = []
    for address in addresses:
        for who in visitors:
            row, is_fast = measure(server, who, address, times)
            print(row, flush=True)
            if not is_fast:
                slow.append(row)
    return slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=21)
    parser.add_argument("--only", default="", help="only pages whose address contains this")
    parser.add_argument("--keep", type=Path, help="folder for the SQLite catalog, which later runs use again")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = prepare(given.database, given.size, folder, stack)
        settings = ServerSettings(
            data=folder / "data",
            catalog=url if given.database == "postgresql" else None,
            anonymous_read=True,
        )
        server = stack.enter_context(running_server(settings))
        chosen = [address for address in ADDRESSES if given.only in address]
        print(f"{WORKERS:,} workers; load {os.getloadavg()[0]:.1f} at the start", flush=True)
        slow = show(server, chosen, given.times)
        print(f"load {os.getloadavg()[0]:.1f} at the end; {len(slow)} of {len(chosen) * 4} too slow")


if __name__ == "__main__":
    main()
