"""Measures the cost of a thousand idle listeners for a server, and the delay until all of them receive an
event.

    python bench/listeners.py [--listeners 1000] [--seconds 20] [--events 20]

A server with its catalog in PostgreSQL; every listener a stream of server-sent events, all of them in one
client. Prints the server's memory and processor time per idle listener, and the time from the call that makes
an event to its arrival at the first and at the last of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from served import Served, served

from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit
from adaptry.testing.postgres import postgres_server

TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--events", type=int, default=20)
    given = parser.parse_args()
    with (
        postgres_server() as postgres,
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "data", "--catalog", postgres.database()) as server,
    ):
        asyncio.run(measure(server, given.listeners, given.seconds, given.events))


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
    streams = [await listen(server, "?about=nobody/*") for _ in range(count)]
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
    writer.write(
        f"GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nAccept:"
        " text/event-stream\r\n\r\n".encode()
    )
    await reader.readuntil(b"\nid: ")
    return reader, writer


async def drain(reader: asyncio.StreamReader, seconds: float) -> None:
    """Reads and discards everything."""
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(4096):
                pass
    except TimeoutError:
        return


async def hear(reader: asyncio.StreamReader, what: bytes) -> float:
    """When it came."""
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
