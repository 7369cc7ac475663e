"""How many aliases does a server resolve in a second, and how long does one take?

    python bench/resolve.py [--seconds 5] [--clients 8] [--workers 1]

Clients with kept connections ask for what an alias means, as workers that follow `prod` do; then once more
saying what they have already (304). Beside it `/healthz`, which does nothing: what is left is ours.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from served import served

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora

PROD = "/api/v1/adapters/acme/tone/versions/prod"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--clients", type=int, default=8)
    arguments.add_argument("--workers", type=int, default=1)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.seconds, options.clients, options.workers)


def measure(folder: Path, seconds: float, clients: int, workers: int) -> None:
    with served(folder / "data", "--workers", str(workers)) as server:
        push(
            server.registry,
            open_dir(tiny_lora(folder / "tone")),
            "acme/tone",
            options=PushOptions(alias="prod"),
        )
        url, bearer = server.url, {"Authorization": f"Bearer {server.token}"}
        tag = answer(url, PROD, bearer).headers["ETag"]
        print(f"{clients} clients, {workers} server process(es)")
        idle = ask(url, "/healthz", {}, seconds, clients)
        show("healthz", idle, seconds, idle)
        show("resolve an alias", ask(url, PROD, bearer, seconds, clients), seconds, idle)
        seen = {**bearer, "If-None-Match": tag}
        show("resolve, nothing changed (304)", ask(url, PROD, seen, seconds, clients), seconds, idle)


def ask(url: str, path: str, headers: dict[str, str], seconds: float, clients: int) -> list[float]:
    """The time of every call that `clients` threads make in `seconds`."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    def work() -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        mine = []
        while (began := time.perf_counter()) < until:
            connection.request("GET", path, headers=headers)
            connection.getresponse().read()
            mine.append(time.perf_counter() - began)
        connection.close()
        times.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def show(what: str, times: list[float], seconds: float, idle: list[float]) -> None:
    cuts = statistics.quantiles(times, n=100)
    share = len(times) / len(idle)
    print(
        f"  {what:<34}{len(times) / seconds:8,.0f} / s   p50 {cuts[49] * 1e3:6.2f} ms   p99"
        f" {cuts[98] * 1e3:6.2f} ms   {share:.2f} of healthz"
    )


def answer(url: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


if __name__ == "__main__":
    main()
