"""Records pushes of the real client, and sends them to a server with `wrk` (Debian's package `wrk`).

The real client takes as much processor time for a push as the server, on the same two processors. So the
client first pushes to a socket that records each request byte for byte and refuses it. Then wrk, which takes
a few microseconds for a request, sends the recorded requests to the server over persistent connections.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from http_load import processor_seconds
from served import Served

from adaptry.adapters.adapter import Adapter
from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry import protocol
from adaptry.registry.http import HttpRegistry

SCRIPT = Path(__file__).with_name("wrk_recorded.lua")
_REFUSAL = (
    f"HTTP/1.1 409 Conflict\r\n{protocol.API_HEADER}: {protocol.API}\r\nContent-Length: 0\r\n\r\n".encode()
)


@dataclass(frozen=True)
class PushLoad:
    """The result of a run: `sent` requests were answered with 201 in `seconds`. `busy` is the processor time
    that wrk used, divided by `seconds`.
    """

    sent: int
    seconds: float
    median: float
    """Latency in milliseconds, like `p99`."""
    p99: float
    busy: float


def recorded(server: Served, pushes: Iterable[tuple[Adapter, str]]) -> list[bytes]:
    """The requests with which the client pushes the adapters to these names on the server, one for each."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = f"127.0.0.1:{listening.getsockname()[1]}"
        requests: list[bytes] = []
        threading.Thread(target=_record, args=(listening, requests), daemon=True).start()
        registry = HttpRegistry(f"http://{here}", server.token)
        for number, (adapter, name) in enumerate(pushes, 1):
            with suppress(Invalid):
                push(registry, adapter, name)
            assert len(requests) == number, "a small push is one request"
    there = server.url.removeprefix("http://").encode()
    return [request.replace(here.encode(), there, 1) for request in requests]


def send(server: Served, requests: list[bytes], clients: int, seconds: int) -> PushLoad:
    """Sends each request at most once. Ends the program if a request fails, if the requests do not last for
    `seconds`, or if wrk is not installed.
    """
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk")
    with tempfile.NamedTemporaryFile("wb", suffix=".requests") as file:
        for request in requests:
            file.write(b"%d\n" % len(request) + request)
        file.flush()
        command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds}s", "--timeout", "30s"]
        command += ["-s", str(SCRIPT), server.url, "--", file.name]
        used = processor_seconds()
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("failed"):
        sys.exit(f"a push failed, or there were too few recorded pushes:\n{done.stdout}")
    return PushLoad(**found, busy=(processor_seconds() - used) / seconds)


def require_versions(server: Served, names: Iterable[str], at_least: int, at_most: int) -> int:
    """The number of versions of these adapters. Ends the program if it is not between the bounds. They differ
    because the last requests may have created versions without being answered.
    """
    registry, found = server.registry, 0
    for name in names:
        cursor: str | None = None
        while True:
            page = registry.versions.list(AdapterName.parse(name), cursor, 200)
            found += len(page.items)
            if (cursor := page.next) is None:
                break
    if not at_least <= found <= at_most:
        sys.exit(f"expected {at_least} to {at_most} versions, but found {found}")
    return found


def _record(listening: socket.socket, requests: list[bytes]) -> None:
    """Reads requests from one connection after another, until the socket is closed."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as received:
                while first := received.readline():
                    head = [first, *iter(received.readline, b"\r\n")]
                    fields = dict(line.lower().split(b": ", 1) for line in head[1:])
                    body = received.read(int(fields[b"content-length"]))
                    requests.append(b"".join([*head, b"\r\n", body]))
                    connection.sendall(_REFUSAL)
