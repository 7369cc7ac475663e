"""Measures the cost of a thousand idle listeners for a server, and the delay until all of them receive an
event.

    python bench/listeners.py [--listeners 1000] [--seconds 20] [--events 20] [--pushes 50]

The server has its catalog in PostgreSQL. Every listener is a stream of server-sent events; one client opens
them all. Prints the server's memory and processor time per idle listener, and the time from the call that
causes an event to its arrival at the first and at the last listener. With `--pushes N`, it instead pushes N
small adapters a second for `--seconds`, each to its own series. Every listener must receive the event of
every push. It prints the delays from the end of a push to its event's arrival at a listener, the number of
lost events, and the server's processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from array import array
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from served import Served, served

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.testing.postgres import postgres_server
from adaptry.testing.samples import tiny_lora

TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT = 120.0
PUSHED = re.compile(rb'"version.pushed".*?"(acme/tone-\d+)"')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--pushes", type=int, default=0, help="pushes a second")
    given = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with (
        postgres_server() as postgres,
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "data", "--catalog", postgres.database()) as server,
    ):
        if given.pushes:
            adapters = made(Path(folder) / "adapters", given.pushes * round(given.seconds))
            asyncio.run(under_pushes(server, given.listeners, given.pushes, adapters))
        else:
            asyncio.run(measure(server, given.listeners, given.seconds, given.events))


def made(folder: Path, count: int) -> list[Adapter]:
    return [open_dir(tiny_lora(folder / str(seed), seed=seed)) for seed in range(count)]


async def under_pushes(server: Served, count: int, rate: int, adapters: Sequence[Adapter]) -> None:
    """Pushes at a rate, by as many threads as it takes, and waits until all listeners received everything.

    The listeners are in another process, which would otherwise slow the pushes.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    hearing = spawn.Process(target=hear_all, args=(server.url, server.token, count, len(adapters), theirs))
    hearing.start()
    ours.recv()  # all streams have begun
    ended: dict[str, float] = {}
    registries = [server.registry for _ in range(8)]
    waiting = asyncio.Semaphore(len(registries))

    async def push_one(number: int) -> None:
        async with waiting:
            registry = registries.pop()
            await asyncio.to_thread(push, registry, adapters[number], f"acme/tone-{number}")
            ended[f"acme/tone-{number}"] = time.perf_counter()
            registries.append(registry)

    used, began, pushing = processor(server.process), time.perf_counter(), []
    for number in range(len(adapters)):
        pushing.append(asyncio.create_task(push_one(number)))
        await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.perf_counter()))
    await asyncio.gather(*pushing)
    lasted = time.perf_counter() - began
    arrivals: dict[str, array[float]] = await asyncio.to_thread(ours.recv)
    used = processor(server.process) - used
    hearing.join()
    delays = sorted(at - ended[name] for name, times in arrivals.items() for at in times)
    lost = count * len(adapters) - len(delays)
    cuts = [delays[int(len(delays) * share)] * 1e3 for share in (0.5, 0.99)] if delays else [0, 0]
    print(
        f"{len(adapters) / lasted:.1f} pushes a second to {count:,} listeners for {lasted:.0f} s: {lost} of"
        f" {count * len(adapters):,} events lost; after {cuts[0]:.0f} ms p50, {cuts[1]:.0f} ms p99 at the"
        f" listeners; {used / lasted:.2f} of a processor for the server, {used / len(adapters) * 1e3:.0f} ms"
        " for each push"
    )


def hear_all(url: str, token: str, count: int, events: int, pipe: Connection) -> None:
    """Opens the streams, reports when all have begun, and then sends the time at which each stream received
    each push.
    """
    uvloop.run(_hear_all(url, token, count, events, pipe))


async def _hear_all(url: str, token: str, count: int, events: int, pipe: Connection) -> None:
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    heard = Arrivals(count * events)
    for _ in range(count):
        stream = Stream(token, heard)
        await loop.create_connection(lambda stream=stream: stream, parts.hostname, parts.port)
        await stream.has_begun
    pipe.send(None)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            await heard.all
    pipe.send(heard.times)


class Arrivals:
    """For each adapter, the times at which its event arrived at each listener."""

    def __init__(self, expected: int) -> None:
        self.times: dict[str, array[float]] = defaultdict(partial(array, "d"))
        self.all = asyncio.get_running_loop().create_future()
        self._missing = expected

    def note(self, name: str, at: float) -> None:
        self.times[name].append(at)
        self._missing -= 1
        if not self._missing:
            self.all.set_result(None)


class Stream(asyncio.Protocol):
    """A listener's connection."""

    def __init__(self, token: str, heard: Arrivals) -> None:
        self.has_begun = asyncio.get_running_loop().create_future()
        self._token, self._heard, self._rest = token, heard, b""
        self._seen: set[bytes] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(request(self._token))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.has_begun.done():
            self._rest += data
            if b"\nid: " in self._rest:
                self.has_begun.set_result(None)
                self._rest = b""
            return
        whole, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        for found in PUSHED.finditer(whole):
            if found[1] not in self._seen:
                self._seen.add(found[1])
                self._heard.note(found[1].decode(), now)


async def measure(server: Served, count: int, seconds: float, events: int) -> None:
    registry, process = server.registry, server.process
    warm = [await listen(server) for _ in range(20)]
    before = memory(process)
    streams = [await listen(server) for _ in range(count)]
    print(f"{count:,} listeners: {(memory(process) - before) / count / 1024:.1f} KiB of memory each")
    began = processor(process)
    draining = [asyncio.create_task(drain(reader, seconds)) for reader, _ in streams]
    await asyncio.gather(*draining)
    spent = (processor(process) - began) / seconds
    print(f"idle: {spent:.3f} of a processor, {1e6 * spent / count:.0f} µs a second each")
    firsts, lasts, began = [], [], processor(process)
    for number in range(events):
        name = f"acme/tone-{number}"
        heard = [asyncio.create_task(hear(reader, name.encode())) for reader, _ in streams]
        await asyncio.sleep(0)
        made = time.perf_counter()
        await asyncio.to_thread(registry.adapters.create, AdapterName.parse(name), AdapterEdit())
        times = await asyncio.gather(*heard)
        firsts.append((min(times) - made) * 1e3)
        lasts.append((max(times) - made) * 1e3)
    told = (processor(process) - began) / (events * count)
    print(f"an event costs the server {1e6 * told:.0f} µs of processor time for each listener")
    print(
        f"an event: at the first after {statistics.median(firsts):.0f} ms, at the last after"
        f" {statistics.median(lasts):.0f} ms (p50)"
    )
    for _, writer in streams:
        writer.close()
    streams = [await listen(server, "?adapter=nobody/*") for _ in range(count)]
    one, began = warm[0][0], processor(process)
    for number in range(events):
        name = f"acme/voice-{number}"
        await asyncio.to_thread(registry.adapters.create, AdapterName.parse(name), AdapterEdit())
        await hear(one, name.encode())
    passed = (processor(process) - began) / (events * count)
    print(f"and {1e6 * passed:.0f} µs for each that asked about other adapters")
    for _, writer in (*streams, *warm):
        writer.close()


async def listen(server: Served, query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that has begun."""
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request(server.token, query))
    await reader.readuntil(b"\nid: ")
    return reader, writer


def request(token: str, query: str = "") -> bytes:
    return (
        f"GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAccept:"
        " text/event-stream\r\n\r\n".encode()
    )


async def drain(reader: asyncio.StreamReader, seconds: float) -> None:
    """Reads and discards everything."""
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(4096):
                pass
    except TimeoutError:
        return


async def hear(reader: asyncio.StreamReader, what: bytes) -> float:
    """Waits for an event; returns the time of its arrival."""
    await reader.readuntil(what + b'"')
    return time.perf_counter()


def memory(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
