"""What do a thousand idle listeners cost a server, and how soon do all of them hear of an event?

    python bench/listeners.py [--listeners 1000] [--seconds 20] [--events 20]

A server with its catalog in PostgreSQL; every listener a stream of server-sent events, all of them in one client. Prints
the server's memory and processor time per idle listener, and the time from the call that makes an event to its
arrival at the first and at the last of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from adaptry.client import HttpRegistry
from adaptry.records import AdapterEdit
from adaptry.refs import AdapterName
from adaptry.testing.postgres import postgres_server

SERVER = """
import sys
from pathlib import Path
from adaptry_api.serve import serve
from adaptry_api.settings import ServerSettings
settings = ServerSettings(data=Path(sys.argv[1]), catalog=sys.argv[2])
serve(settings, port=0, announce=lambda started: print(started.url, flush=True))
"""
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--events", type=int, default=20)
    given = parser.parse_args()
    with postgres_server() as postgres, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SERVER, str(Path(folder) / "data"), postgres.database()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                url = process.stdout.readline().strip()
                token = (Path(folder) / "data" / "admin-token").read_text().strip()
                asyncio.run(measure(process.pid, url, token, given.listeners, given.seconds, given.events))
            finally:
                process.terminate()


async def measure(server: int, url: str, token: str, count: int, seconds: float, events: int) -> None:
    registry = HttpRegistry(url, token)
    warm = [await listen(url, token) for _ in range(20)]
    before = memory(server)
    streams = [await listen(url, token) for _ in range(count)]
    print(f"{count:,} listeners: {(memory(server) - before) / count / 1024:.1f} KiB of memory each")
    began = processor(server)
    draining = [asyncio.create_task(drain(reader, seconds)) for reader, _ in streams]
    await asyncio.gather(*draining)
    spent = (processor(server) - began) / seconds
    print(f"idle: {spent:.3f} of a processor, {1e6 * spent / count:.0f} µs a second each")
    firsts, lasts, began = [], [], processor(server)
    for number in range(events):
        name = f"acme/tone-{number}"
        heard = [asyncio.create_task(hear(reader, name.encode())) for reader, _ in streams]
        await asyncio.sleep(0)
        made = time.perf_counter()
        await asyncio.to_thread(registry.create_adapter, AdapterName.parse(name), AdapterEdit())
        times = await asyncio.gather(*heard)
        firsts.append((min(times) - made) * 1e3)
        lasts.append((max(times) - made) * 1e3)
    told = (processor(server) - began) / (events * count)
    print(f"an event costs the server {1e6 * told:.0f} µs of processor time for each listener")
    print(
        f"an event: at the first after {statistics.median(firsts):.0f} ms, at the last after {statistics.median(lasts):.0f} ms (p50)"
    )
    for _, writer in streams:
        writer.close()
    streams = [await listen(url, token, "?about=nobody/*") for _ in range(count)]
    one, began = warm[0][0], processor(server)
    for number in range(events):
        name = f"acme/voice-{number}"
        await asyncio.to_thread(registry.create_adapter, AdapterName.parse(name), AdapterEdit())
        await hear(one, name.encode())
    passed = (processor(server) - began) / (events * count)
    print(f"and {1e6 * passed:.0f} µs for each that asked about other adapters")
    for _, writer in (*streams, *warm):
        writer.close()


async def listen(url: str, token: str, query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that has begun."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n".encode()
    )
    await reader.readuntil(b"\nid: ")
    return reader, writer


async def drain(reader: asyncio.StreamReader, seconds: float) -> None:
    """Reads what comes and looks at none of it."""
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
