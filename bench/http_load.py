"""Loads a server with GET requests over persistent connections, from a dedicated thread.

    python bench/http_load.py URL PATH... [--clients 8] [--seconds 5] [--header "Name: value"]

Each client sends its next request, of the paths in turn, when it has the whole answer to the one before. A
request takes some 15 µs of this process, far less than a server's work, so the server is the bottleneck.
Prints one line of JSON: requests a second, the median and 99th percentile in milliseconds, and the statuses.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """The measurements; times in milliseconds."""

    rate: float
    median: float
    p99: float
    statuses: Mapping[str, int]


def load(url: str, paths: Sequence[str], headers: Mapping[str, str], clients: int, seconds: float) -> Load:
    """Loads a server from a separate process."""
    words = [sys.executable, __file__, url, *paths, "--clients", str(clients), "--seconds", str(seconds)]
    for name, value in headers.items():
        words += ["--header", f"{name}: {value}"]
    return Load(**json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--header", action="append", default=[])
    asked = parser.parse_args()
    address = urlsplit(asked.url)
    lines = [f"Host: {address.netloc}", *asked.header]
    requests = ["\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode() for path in asked.paths]
    times, statuses = _run(
        (str(address.hostname), address.port or 80), requests, asked.clients, asked.seconds
    )
    cuts = statistics.quantiles(times, n=100)
    found = {"rate": len(times) / asked.seconds, "median": cuts[49] * 1e3, "p99": cuts[98] * 1e3}
    print(json.dumps({**found, "statuses": statuses}))


class _Client:
    """A connection with one request under way."""

    def __init__(self, address: tuple[str, int], requests: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = requests
        self._received = b""
        self._began = 0.0

    def send(self) -> None:
        self._received = b""
        self._began = time.perf_counter()
        self.socket.sendall(next(self._requests))

    def receive(self) -> tuple[float, str] | None:
        """The time and status of the answer, once it is here."""
        data = self.socket.recv(1 << 16)
        if not data:
            sys.exit("the server closed a connection")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        _, named, length = head.lower().partition(b"\r\ncontent-length: ")
        if named and len(body) < int(length.partition(b"\r\n")[0]):
            return None
        return time.perf_counter() - self._began, head[9:12].decode()


def _run(
    address: tuple[str, int], requests: Sequence[bytes], clients: int, seconds: float
) -> tuple[list[float], Counter[str]]:
    times: list[float] = []
    statuses: Counter[str] = Counter()
    with selectors.DefaultSelector() as waiting:
        for number in range(clients):
            client = _Client(address, islice(cycle(requests), number, None))
            waiting.register(client.socket, selectors.EVENT_READ, client)
            client.send()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for key, _ in waiting.select():
                answered: Any = key.data.receive()
                if answered is not None:
                    times.append(answered[0])
                    statuses[answered[1]] += 1
                    key.data.send()
    return times, statuses


if __name__ == "__main__":
    main()
