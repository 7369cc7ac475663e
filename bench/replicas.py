"""Measures a server's requests per second of processor time, alone and as one of two behind the balancer.

    python bench/replicas.py [--requests 400] [--clients 4]

The topology of compose.yaml, as processes: PostgreSQL, SeaweedFS, two API servers, Caddy. `one` sends every
request to the first server, `two` sends them through the balancer, which gives each server every other one.
The processor time of the servers (and of the balancer, in its own column) is read from /proc, so that other
programs on the machine do not matter. The time that idle servers use for health checks is measured first and
subtracted. Afterwards, every pushed version is pulled and compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora

SCRIPTS = Path(__file__).resolve().parents[1] / "examples" / "topology"
SERVERS = ("api-1", "api-2")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Topology:
    """The addresses, the processes, and the administrator's token."""

    folder: Path
    balancer: str
    token: str

    def state(self) -> dict[str, dict[str, Any]]:
        """(`Any`: JSON.)"""
        return json.loads((self.folder / "run" / "state.json").read_text())  # type: ignore[no-any-return]

    def seconds(self, *services: str) -> float:
        """Processor time that those processes have used."""
        ticks = 0
        for service in services:
            fields = (
                Path(f"/proc/{self.state()[service]['pid']}/stat").read_text().rpartition(") ")[2].split()
            )
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=400)
    arguments.add_argument("--clients", type=int, default=4)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="adaptry-bench-") as folder, running(Path(folder)) as topology:
        measure(topology, options.requests, options.clients)


@contextmanager
def running(folder: Path) -> Iterator[Topology]:
    folder.chmod(0o755)  # PostgreSQL runs as another user, and must find its data
    secrets = folder / "secrets"
    subprocess.run(
        [sys.executable, str(SCRIPTS / "make_secrets.py"), str(secrets)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    command = [sys.executable, str(SCRIPTS / "run.py"), str(folder / "run")]
    environment = {**os.environ, "SECRETS": str(secrets)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            yield Topology(folder, url, (secrets / "admin-token").read_text().strip())
        finally:
            process.terminate()


def measure(topology: Topology, requests: int, clients: int) -> None:
    first = HttpRegistry(f"http://{topology.state()['api-1']['address']}:8750", topology.token)
    both = HttpRegistry(topology.balancer, topology.token)
    lora = open_dir(tiny_lora(topology.folder / "lora"))
    for number in range(20):
        push(first, lora, f"acme/tone-{number}", options=PushOptions(alias="prod"))
    print(
        f"{requests} requests of each kind by {clients} clients; requests (pushes, pulls) per second of"
        " processor time"
    )
    print(f"  {'':<24}{'one':>10}{'two':>10}{'two / one':>11}{'balancer, ms each':>19}")
    idle = idling(topology)
    pushed: dict[str, Path] = {}
    for what, count, act in kinds(topology.folder, requests, pushed):
        one, _ = rate(topology, idle, count, clients, partial(act, first, "one"))
        two, balancing = rate(topology, idle, count, clients, partial(act, both, "two"))
        print(f"  {what:<24}{one:10,.0f}{two:10,.0f}{two / one:11.2f}{balancing * 1e3:19.2f}")
    for ref, folder in pushed.items():
        pull(both, ref, topology.folder / "again" / folder.name)
        name = "adapter_model.safetensors"
        assert (topology.folder / "again" / folder.name / name).read_bytes() == (
            folder / name
        ).read_bytes(), ref
    print(f"  {len(pushed)} versions pushed, each pulled through the balancer as it was")


def kinds(
    folder: Path, requests: int, pushed: dict[str, Path]
) -> list[tuple[str, int, Callable[[HttpRegistry, str, int], object]]]:
    """The kinds of requests: name, number, and function."""
    name = AdapterName.parse("acme/tone-1")
    seeds = itertools.count(1)

    def pull_one(registry: HttpRegistry, way: str, number: int) -> None:
        pull(registry, f"acme/tone-{number % 20}@prod", folder / f"pulled-{way}" / str(number))

    def push_one(registry: HttpRegistry, way: str, number: int) -> None:
        source = tiny_lora(folder / f"pushed-{way}-{number}", seed=next(seeds))
        version = push(registry, open_dir(source), f"acme/pushed-{number % 5}").version
        pushed[f"{version.name}@{version.number}"] = source

    return [
        ("resolve an alias", requests, lambda registry, *_: registry.versions.get(Ref.parse(f"{name}@prod"))),
        ("list adapters", requests, lambda registry, *_: registry.adapters.list()),
        ("search", requests, lambda registry, *_: registry.versions.search("rank<=64 method:lora")),
        ("pull (4 requests)", requests // 4, pull_one),
        ("push (8 requests)", requests // 8, push_one),
    ]


def idling(topology: Topology, seconds: float = 10) -> float:
    """The servers' processor time per second while they only get health checks."""
    before = topology.seconds(*SERVERS)
    time.sleep(seconds)
    return (topology.seconds(*SERVERS) - before) / seconds


def rate(
    topology: Topology, idle: float, count: int, clients: int, act: Callable[[int], object]
) -> tuple[float, float]:
    """Operations per second of the servers' processor time, and the balancer's seconds for each."""
    before, balancing, began = topology.seconds(*SERVERS), topology.seconds("balancer"), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(act, range(count)))
    used = topology.seconds(*SERVERS) - before - idle * (time.perf_counter() - began)
    return count / max(used, 1 / TICKS), (topology.seconds("balancer") - balancing) / count


if __name__ == "__main__":
    main()
