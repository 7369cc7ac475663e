"""Large local files sent with `sendfile`: whole files, ranges, broken connections, and clients that do not
read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio import Task
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.testing.samples import tiny_lora
from adaptry_api import deadlines, direct_files, downloads
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
    """The address of the weights; no thread reads the file."""
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


@contextmanager
def ask_slowly(server: Server, path: str) -> Iterator[None]:
    """Reads only the beginning of the response, and has small buffers for the rest."""
    parts = urlsplit(server.url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((parts.hostname, parts.port))
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {server.admin}\r\n\r\n"
        slow.sendall(head.encode())
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        yield


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
    with ask_slowly(server, path):
        until(lambda: open_descriptors(blob(server, weights)), (0).__eq__)


def test_a_client_that_did_not_read_the_previous_answer_is_dropped(
    server: Server, path: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = direct_files.DirectFiles._send_file

    async def send_after_others(protocol: direct_files.DirectFiles, *given: Any) -> int:
        while not protocol.transport.get_write_buffer_size():  # still after two turns of the event loop
            protocol.transport.write(bytes(1 << 14))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await send(protocol, *given)

    monkeypatch.setattr(direct_files.DirectFiles, "_send_file", send_after_others)
    monkeypatch.setattr(deadlines.DeadlineProtocol, "read_seconds", 0.2)
    with ask_slowly(server, path):
        until(lambda: open_descriptors(blob(server, weights)), (0).__eq__)


def test_a_client_that_reads_slowly_occupies_no_thread(tmp_path: Path) -> None:
    size, has_ended = 8 << 20, Event()
    (tmp_path / "file").write_bytes(bytes(size))
    with socket.socket() as listening, socket.socket() as slow:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        slow.connect(listening.getsockname())
        connection, _ = listening.accept()

        def read() -> None:
            while not has_ended.wait(0.002):
                slow.recv(32 << 10)

        reader = Thread(target=read)
        with connection, (tmp_path / "file").open("rb") as file:
            connection.setblocking(False)
            reader.start()
            sent = direct_files._send_part(connection.fileno(), file.fileno(), 0, size)
            has_ended.set()
            reader.join()
    assert sent is not None
    assert sent < size


def test_a_thread_that_sends_keeps_its_descriptors_when_the_server_cancels_the_download(
    server: Server, path: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server does this 30 seconds after it was asked to stop."""
    send_file, send, downloads_ = direct_files.DirectFiles._send_file, os.sendfile, list[Task[Any]]()
    found = SimpleQueue[bool]()

    async def noted(protocol: direct_files.DirectFiles, *given: Any) -> int:
        downloads_.append(cast("Task[Any]", asyncio.current_task()))
        return await send_file(protocol, *given)

    def cancelled(connection: int, file: int, offset: int, count: int) -> int:
        (download,) = downloads_
        has_ended = Event()
        download.add_done_callback(lambda _: has_ended.set())
        download.get_loop().call_soon_threadsafe(download.cancel)
        has_ended.wait(0.5)
        found.put(os.path.sameopenfile(file, kept.fileno()))
        return send(connection, file, offset, count)

    monkeypatch.setattr(direct_files.DirectFiles, "_send_file", noted)
    monkeypatch.setattr(os, "sendfile", cancelled)
    with blob(server, weights).open("rb") as kept, ask_slowly(server, path):
        assert found.get(timeout=30)
    until(lambda: open_descriptors(blob(server, weights)), (0).__eq__)


def test_a_large_answer_after_one_from_memory_may_take_longer_than_connections_are_kept(
    server: Server, path: str, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = property(lambda self: 0, lambda self, value: None)
    monkeypatch.setattr(deadlines.DeadlineProtocol, "timeout_keep_alive", at_once, raising=False)
    parts = urlsplit(server.url)
    head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {server.admin}\r\n\r\n"

    def connect() -> socket.socket:
        return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30)

    with connect() as slow:
        slow.sendall(f"GET /healthz HTTP/1.1\r\n{head}GET {path} HTTP/1.1\r\n{head}".encode())
        for _ in range(20):  # turns of the event loop
            with connect() as other:
                other.sendall(f"GET /healthz HTTP/1.1\r\nConnection: close\r\n{head}".encode())
                assert other.makefile("rb").read().endswith(b"ok\n")
        assert slow.makefile("rb").read().endswith(weights)


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
