"""Large files on the server's machine, which the system sends by itself: whole, in part, broken, not read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.testing.samples import tiny_lora
from adaptry_api import deadlines, downloads
from adaptry_api.testing import Server, until

pytest.importorskip("httptools", reason="httptools is not installed")
NAME = AdapterName.parse("acme/tone")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_lora(tmp_path / "large", layers=4, rank=64, hidden=4096)


@pytest.fixture
def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


@pytest.fixture
def path(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of the weights. No thread reads them."""
    digest = push(server.registry(), open_dir(folder), NAME).version.digest
    monkeypatch.setattr(downloads, "_begun", lambda *_: pytest.fail("read by a thread"))
    return f"/api/v1/adapters/{NAME}/revisions/{digest}/files/{WEIGHTS}"


@pytest.fixture
def connection(server: Server) -> Iterator[HTTPConnection]:
    parts = urlsplit(server.url)
    opened = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    yield opened
    opened.close()


def get(server: Server, connection: HTTPConnection, path: str, **headers: str) -> tuple[int, bytes]:
    connection.request("GET", path, headers={"Authorization": f"Bearer {server.admin}", **headers})
    response = connection.getresponse()
    return response.status, response.read()


def blob(server: Server, weights: bytes) -> Path:
    hex = Digest.of(weights).hex
    return server.data / "blobs" / "sha256" / hex[:2] / hex


def open_descriptors(file: Path) -> int:
    return sum(link.exists() and link.samefile(file) for link in Path("/proc/self/fd").iterdir())


def test_the_whole_file_and_ranges_of_it_come_over_one_connection(
    server: Server, connection: HTTPConnection, path: str, weights: bytes
) -> None:
    assert get(server, connection, path) == (200, weights)
    assert get(server, connection, path, Range="bytes=5-4000004") == (206, weights[5:4000005])
    assert get(server, connection, path, Range="bytes=-3000000") == (206, weights[-3000000:])
    assert get(server, connection, "/healthz")[0] == 200
    until(lambda: open_descriptors(blob(server, weights)), (0).__eq__)


def test_sent_bytes_are_counted(
    server: Server, connection: HTTPConnection, path: str, weights: bytes
) -> None:
    def sent() -> float:
        lines = server.call("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("adaptry_sent_bytes_total"))

    before = sent()
    get(server, connection, path)
    until(sent, lambda now: before + len(weights) <= now < before + 2 * len(weights))


def test_a_pull_gets_the_same_files(
    server: Server, path: str, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pull(server.registry(), str(NAME), tmp_path / "pulled")
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == weights


def test_a_client_that_leaves_in_the_middle_leaves_nothing_open(
    server: Server, connection: HTTPConnection, path: str, weights: bytes
) -> None:
    connection.request("GET", path, headers={"Authorization": f"Bearer {server.admin}"})
    assert connection.getresponse().read(1000) == weights[:1000]
    connection.close()
    until(lambda: open_descriptors(blob(server, weights)), (0).__eq__)


def test_a_client_that_stops_reading_is_dropped(
    server: Server, path: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines.DeadlineProtocol, "read_seconds", 0.2)
    parts = urlsplit(server.url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((parts.hostname, parts.port))
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {server.admin}\r\n\r\n"
        slow.sendall(head.encode())
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        until(lambda: open_descriptors(blob(server, weights)), (0).__eq__)


def test_a_file_that_is_shorter_than_it_was_ends_the_connection(
    server: Server, connection: HTTPConnection, path: str, weights: bytes
) -> None:
    os.truncate(blob(server, weights), 3_000_000)
    with pytest.raises(IncompleteRead) as raised:
        get(server, connection, path)
    assert raised.value.partial == weights[:3_000_000]


def test_other_servers_read_the_file(
    server: Server, connection: HTTPConnection, path: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(downloads, "ZERO_COPY_SEND", "no extension of this name")
    assert get(server, connection, path) == (200, weights)
