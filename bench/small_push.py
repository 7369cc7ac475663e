"""Measures the duration of a small adapter's push over HTTP, and its cost for the server.

    python bench/small_push.py [--pushes 60] [--clients 8] [--seconds 3] [--rounds 3] [--workers 1]

Each push sends a different adapter of two files (about 5 KB) to a running `adaptry serve`. For "alone", the
real client makes one push after another. After each push, the lower limit is measured: the time to write,
flush and rename a file, to flush its folder, and to commit a row. Then several connections push at once: wrk
sends requests recorded from the real client, so that the server has the machine almost to itself
(`recorded_pushes.py`). At the end, the versions are counted, and all files are read and compared with their
digests. The server's processor time includes its child processes. `--workers` is passed to `adaptry serve`.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from figures import note
from recorded_pushes import recorded, require_versions, send
from served import Served, served

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.operations.transfer import push
from adaptry.testing.samples import tiny_lora

TICK = os.sysconf("SC_CLK_TCK")
MAX_A_SECOND = 500
"""Number of pushes to record for each second of load."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pushes", type=int, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        data, fresh = Path(folder) / "data", adapters(Path(folder) / "adapters")
        sent = 0
        with served(data, "--workers", str(asked.workers)) as server:
            for _ in range(20 * asked.workers):  # warms up both sides
                push(server.registry, next(fresh), "warm/tone")
            for _ in range(asked.rounds):
                alone(server, [next(fresh) for _ in range(asked.pushes)], Path(folder) / "limit")
                sent += together(server, fresh, asked.clients, asked.seconds)
            print(f"{resident(server) / 1e6:.0f} MB of the server's memory, its children's included")
            names = [f"load/tone-{number}" for number in range(asked.clients)]
            found = require_versions(server, names, sent, sent + asked.rounds * asked.clients)
        command = [sys.executable, "-m", "adaptry_cli", "verify", "--read-data", "--registry", str(data)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"wrk got {sent} answers; the registry has {found} of its versions, and no file is damaged")


def adapters(folder: Path) -> Iterator[Adapter]:
    for seed in count(1):
        yield open_dir(tiny_lora(folder / str(seed), seed=seed))


def alone(server: Served, made: list[Adapter], place: Path) -> None:
    registry, limit = server.registry, Limit(place)
    ours, least, before = [], [], cpu(server)
    for number, adapter in enumerate(made):
        name = f"acme/tone-{number % 7}"
        ours.append(timed(lambda a=adapter, n=name: push(registry, a, n)))
        least.append(timed(limit.store))
    spent = (cpu(server) - before) / len(made)
    half, floor = statistics.median(ours), statistics.median(least)
    tenths = statistics.quantiles(ours, n=10)
    note("push-alone", ours, least)
    note("push-cpu", [spent])
    print(
        f"alone: {half * 1e3:.1f} ms p50 ({tenths[0] * 1e3:.1f} to {tenths[-1] * 1e3:.1f}); three flushes"
        f" {floor * 1e3:.1f} ms, {half / floor:.2f} x; {spent * 1e3:.1f} ms of the server's processor time"
    )


def together(server: Served, fresh: Iterator[Adapter], clients: int, seconds: int) -> int:
    """Sends pushes over `clients` connections, and returns the number that were answered."""
    made = ((next(fresh), f"load/tone-{number % clients}") for number in range(MAX_A_SECOND * seconds))
    requests = recorded(server, made)
    before = cpu(server)
    found = send(server, requests, clients, seconds)
    spent = (cpu(server) - before) / found.sent
    rate = found.sent / found.seconds
    note("push-together", [rate])
    print(
        f"{clients} clients: {rate:.0f} pushes/s, {found.median:.1f} ms p50, {found.p99:.1f} p99;"
        f" {spent * 1e3:.2f} ms of the server's processor time; wrk used {found.busy:.2f} of a processor",
        flush=True,
    )
    return found.sent


class Limit:
    """The minimum of a durable push: bytes, a name and a row on disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._rows = sqlite3.connect(folder / "rows.db", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE IF NOT EXISTS t (x)",
        ):
            self._rows.execute(statement)

    def store(self) -> None:
        file = self._folder / "new"
        with file.open("wb") as out:
            out.write(random.randbytes(5000))
            out.flush()
            os.fsync(out.fileno())
        file.rename(self._folder / random.randbytes(8).hex())
        descriptor = os.open(self._folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        self._rows.execute("INSERT INTO t VALUES (?)", (random.randbytes(2000),))


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def resident(server: Served) -> int:
    """The memory of the server and its children in bytes; shared pages are divided among them."""
    total = 0
    for process in family(server.process):
        with suppress(ProcessLookupError, FileNotFoundError):  # a child that has ended
            fields = Path(f"/proc/{process}/smaps_rollup").read_text().split()
            total += int(fields[fields.index("Pss:") + 1]) << 10
    return total


def family(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [process, *(int(child) for task in tasks for child in (task / "children").read_text().split())]


def cpu(server: Served) -> float:
    """Seconds of processor time of the server and its children, including those that have ended."""
    times = stat(server.process)[11:15]
    for child in family(server.process)[1:]:
        times += stat(child)[11:13]
    return sum(map(int, times)) / TICK


def stat(process: int) -> list[str]:
    """The fields after the name; none for a process that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    main()
