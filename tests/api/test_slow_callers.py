"""Stalled connections are closed, flooding ones are cut off, and other clients are served meanwhile."""

from __future__ import annotations

import select
import socket
import sqlite3
from contextlib import ExitStack, closing
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.testing.samples import tiny_lora
from adaptry_api import bodies, body_pace
from adaptry_api.testing import Server

deadlines = pytest.importorskip("adaptry_api.deadlines", reason="httptools is not installed")
NAME = AdapterName.parse("acme/tone")


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    assert parts.hostname and parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def ask_healthz(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = HTTPResponse(connection)
    answer.begin()
    assert (answer.status, answer.read()) == (200, b"ok\n")


def until_closed(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_whose_head_does_not_arrive_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    with connect(server) as other:
        ask_healthz(other)  # with the usual deadline, which this caller meets even on a busy machine
        monkeypatch.setattr(deadlines.DeadlineProtocol, "head_seconds", 0.2)
        with connect(server) as stalled:
            stalled.sendall(sent)
            ask_healthz(other)
            assert until_closed(stalled) == b""


@pytest.mark.parametrize("line_end", [b"", b"\r\n\r\n"])
def test_an_endless_request_head_is_cut_off(server: Server, line_end: bytes) -> None:
    with connect(server) as flooding:
        try:
            flooding.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * (4 << 20) + line_end)
        except ConnectionError:
            return
        assert not until_closed(flooding).startswith(b"HTTP/1.1 2")


def test_a_keep_alive_connection_has_no_deadline_between_requests(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(server) as kept:
        ask_healthz(kept)  # with the usual deadline: a busy machine may delay what follows a connection
        monkeypatch.setattr(deadlines.DeadlineProtocol, "head_seconds", 0.2)
        for _ in range(2):
            ask_healthz(kept)
            with connect(server) as stalled:
                assert until_closed(stalled) == b""  # more than the deadline has passed


@pytest.mark.parametrize("is_late", [False, True], ids=["", "by a clock behind the loop's"])
def test_a_stalled_body_gets_a_response_and_received_bytes_are_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    monkeypatch.setattr(body_pace, "IDLE_SECONDS", 0.3)
    if is_late:
        monkeypatch.setattr(bodies, "time", SimpleNamespace(monotonic=float))
    registry = server.registry()
    registry.adapters.create(NAME, AdapterEdit())
    upload = registry.uploads.open(NAME, Digest.of(b"x" * 1000), 1000)
    with connect(server) as stalled:
        stalled.sendall(
            f"PATCH /api/v1/uploads/{upload.id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: Bearer {server.admin}\r\nContent-Type: application/octet-stream\r\n"
            "Content-Length: 1000\r\nUpload-Offset: 0\r\nUpload-Size: 1000\r\n\r\n".encode()
            + b"x" * 600
        )
        assert until_closed(stalled).startswith(b"HTTP/1.1 408")
    assert registry.uploads.open(NAME, Digest.of(b"x" * 1000), 1000).offset == 600


def test_reads_are_answered_while_many_writers_wait(server: Server) -> None:
    server.registry().adapters.create(NAME, AdapterEdit())
    never_seen = server.token("rita", "reader", ("acme",))
    body = b'{"description": "new"}'
    head = (
        f"PATCH /api/v1/adapters/{NAME} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with ExitStack() as stack:
        other = stack.enter_context(closing(sqlite3.connect(server.data / "catalog.sqlite")))
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")  # as another process that writes for long
        writers = [stack.enter_context(connect(server)) for _ in range(64)]
        for writer in writers:
            writer.sendall(head.encode() + body)

        reads = (f"/api/v1/adapters/{NAME}", f"/api/v1/adapters/{NAME}/versions", f"/{NAME}")
        assert [server.call("GET", path, token=never_seen).status for path in reads] == [200, 200, 200]
        assert select.select(writers, [], [], 0) == ([], [], [])

        other.execute("ROLLBACK")
        for writer in writers:
            answer = HTTPResponse(writer)
            answer.begin()
            assert (answer.status, len(answer.read()) > 0) == (200, True)


def test_writes_of_another_tenant_start_while_one_tenants_writers_wait(server: Server) -> None:
    """Each of these writers has a thread, so as many as its tenant gets are under way; the others wait."""
    server.registry().adapters.create(NAME, AdapterEdit())
    flooding, other = (
        server.token("alice", "maintainer", ("acme",)),
        server.token("bob", "reader", ("other",)),
    )
    body = b'{"description": "new"}'
    with ExitStack() as stack:
        lock = stack.enter_context(closing(sqlite3.connect(server.data / "catalog.sqlite")))
        lock.isolation_level = None
        lock.execute("BEGIN IMMEDIATE")  # as another process that writes for long
        writers = [stack.enter_context(connect(server)) for _ in range(64)]
        for writer in writers:
            writer.sendall(
                f"PATCH /api/v1/adapters/{NAME} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {flooding}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
        server.call("GET", f"/api/v1/adapters/{NAME}", token=flooding)  # sent last, so all have arrived

        user = {"kind": "user", "name": "zoe"}  # is refused before it needs the lock
        assert server.call("POST", "/api/v1/principals", user, token=other).status == 403
        assert select.select(writers, [], [], 0) == ([], [], [])

        for gone in writers[::2]:  # leave no count behind, with or without a thread
            gone.close()
        lock.execute("ROLLBACK")
        for writer in writers[1::2]:
            answer = HTTPResponse(writer)
            answer.begin()
            assert (answer.status, len(answer.read()) > 0) == (200, True)
        edit = {"description": "newer"}
        assert server.call("PATCH", f"/api/v1/adapters/{NAME}", edit, token=flooding).status == 200


def test_a_response_that_is_not_read_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deadlines.DeadlineProtocol, "read_seconds", 0.2)
    folder = tiny_lora(tmp_path / "tone")
    (folder / "README.md").write_bytes(bytes(32 << 20))  # more than the sockets' buffers hold
    version = push(server.registry(), open_dir(folder), NAME).version
    with connect(server) as stalled:
        stalled.sendall(
            f"GET /api/v1/adapters/{NAME}/revisions/{version.digest}/files/README.md HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {server.admin}\r\n\r\n".encode()
        )
        assert stalled.recv(1 << 10).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(deadlines.DeadlineProtocol, "head_seconds", 1.0)
        with connect(server) as other:
            assert until_closed(other) == b""  # more than the deadline has passed
        assert len(until_closed(stalled)) < 32 << 20
