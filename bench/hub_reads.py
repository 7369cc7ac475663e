"""Measures the server's processor time for the requests of a Hub client.

    python bench/hub_reads.py [--adapters 50] [--rounds 20] [--folder DIR]

A snapshot of a small adapter is six requests: for the repository and its list of files, then `HEAD` and
`GET` of each of its two files. They are replayed over one connection with the headers that huggingface_hub
sends, and compared with as many requests of `/healthz`. Before each round a download is counted, which is a
commit, so the server caches nothing from the previous round. The processor time is the server's, user and
system, as the kernel counts it; other programs on the machine can double it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from urllib.parse import urlsplit

from figures import note
from served import Served, served

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.testing.samples import tiny_lora

CLIENT = (
    "Accept-Encoding: identity\r\nAccept: */*\r\nConnection: keep-alive\r\n"
    "User-Agent: unknown/None; hf_hub/2.4.0; python/3.11.7; httpx/0.28.1\r\n"
)
SETTLING_SECONDS = 0.3  # until the server's periodic work has noticed that nothing happens
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, served(Path(folder) / "data") as server:
        snapshots = [snapshot(server, Path(folder) / str(number), number) for number in range(asked.adapters)]
        with Client(server) as client:
            kinds = {
                "repository": [requests[0] for requests in snapshots],
                "list of files": [requests[1] for requests in snapshots],
                "HEAD": [one for requests in snapshots for one in requests if one[0] == "HEAD"],
                "GET of a file": [one for requests in snapshots for one in requests[2:] if one[0] == "GET"],
                "/healthz": [("GET", "/healthz")] * len(snapshots),
            }
            for name, requests in kinds.items():
                seconds = processor(server, client, requests, asked.rounds) / len(requests)
                print(f"  {name:<40}{seconds * 1e3:8.3f} ms")
            every = [one for requests in snapshots for one in requests]
            seconds = processor(server, client, every, asked.rounds) / len(snapshots)
            print(f"  {'snapshot: all six requests':<40}{seconds * 1e3:8.3f} ms")
            note("hub-snapshot-processor", [seconds])


class Client:
    """One connection, kept alive."""

    def __init__(self, server: Served) -> None:
        address = urlsplit(server.url)
        self._head = f"Host: {address.netloc}\r\nAuthorization: Bearer {server.token}\r\n{CLIENT}\r\n"
        self._socket = socket.create_connection((str(address.hostname), address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._received.close()
        self._socket.close()

    def request(self, method: str, path: str, extra: str = "") -> bytes:
        """A request with the client's headers and some `extra` lines."""
        return f"{method} {path} HTTP/1.1\r\n{extra}{self._head}".encode()

    def ask(self, method: str, path: str) -> tuple[int, bytes]:
        """The status and the body."""
        return self._exchange(self.request(method, path))

    def send(self, request: bytes) -> int:
        """Sends a request that was made before; returns the status."""
        return self._exchange(request)[0]

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request)
        status, length = int(self._received.readline().split()[1]), 0
        while (line := self._received.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        has_body = status != 304 and not request.startswith(b"HEAD")
        return status, self._received.read(length if has_body else 0)


def snapshot(server: Served, folder: Path, number: int, namespace: str = "acme") -> Sequence[tuple[str, str]]:
    """The requests that a client sends for a small adapter, which is pushed before."""
    name = f"{namespace}/small-{number}"
    push(server.registry, open_dir(tiny_lora(folder, seed=number)), name)
    with Client(server) as client:
        _, body = client.ask("GET", f"/api/models/{name}/revision/main")
    found = json.loads(body)
    files = [f"/{name}/resolve/{found['sha']}/{one['rfilename']}" for one in found["siblings"]]
    each = [(method, path) for path in files for method in ("HEAD", "GET")]
    tree = f"/api/models/{name}/tree/{found['sha']}?recursive=true&expand=false"
    return [("GET", f"/api/models/{name}/revision/main"), ("GET", tree), *each]


def processor(server: Served, client: Client, requests: Sequence[tuple[str, str]], rounds: int) -> float:
    """The server's processor time for these requests, in seconds: the mean of the rounds, after one that is
    not counted.
    """
    taken = []
    for _ in range(rounds + 1):
        server.registry.versions.count_download(Ref.parse("acme/small-0@1"))
        time.sleep(SETTLING_SECONDS)
        began = used(server.process)
        for method, path in requests:
            status, _ = client.ask(method, path)
            assert status == 200, (status, path)
        taken.append(used(server.process) - began)
    return fmean(taken[1:])


def used(process: int) -> float:
    """The processor time of a process and its threads so far, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
