"""Large request bodies of known length, which a thread reads from the socket: accepted, refused, cut off or
slow.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.content import MemoryContent
from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch, TooLarge, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.file_upload import upload
from adaptry.registry.records import AdapterEdit, UploadInfo
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry_api import body_pace
from adaptry_api.testing import Server, until

pytest.importorskip("httptools", reason="httptools is not installed")
NAME = AdapterName.parse("acme/tone")
DATA = bytes(range(256)) * (3 << 12)  # 3 MiB
DIGEST = Digest.of(DATA)


@pytest.fixture
def opened(server: Server) -> UploadInfo:
    registry = server.registry()
    registry.adapters.create(NAME, AdapterEdit())
    return registry.uploads.open(NAME, DIGEST, len(DATA))


@contextmanager
def connected(server: Server) -> Iterator[HTTPConnection]:
    parts = urlsplit(server.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def headers(server: Server, offset: int, length: int = len(DATA)) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {server.admin}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(length),
        "Upload-Offset": str(offset),
        "Upload-Size": str(len(DATA)),
    }


def patch(connection: HTTPConnection, server: Server, id: str, offset: int, data: bytes) -> HTTPResponse:
    connection.request("PATCH", f"/api/v1/uploads/{id}", data, headers(server, offset, len(data)))
    return connection.getresponse()


def begin(connection: HTTPConnection, server: Server, id: str) -> socket.socket:
    """Sends the head of a request whose body is all of `DATA`, and returns the socket."""
    connection.putrequest("PATCH", f"/api/v1/uploads/{id}")
    for name, value in headers(server, 0).items():
        connection.putheader(name, value)
    connection.endheaders()
    assert isinstance(connection.sock, socket.socket)
    return connection.sock


def test_a_connection_serves_the_next_requests_after_a_large_body(server: Server, opened: UploadInfo) -> None:
    with connected(server) as connection:
        half = len(DATA) // 2
        for offset in (0, half):
            answer = patch(connection, server, opened.id, offset, DATA[offset : offset + half])
            assert (answer.status, bool(answer.read())) == (200, True)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
    server.registry().uploads.finish(server.registry().uploads.open(NAME, DIGEST, len(DATA)))
    assert server.registry().files.has(NAME, DIGEST)


def test_a_refused_body_is_skipped_and_the_connection_serves_the_next_request(
    server: Server, opened: UploadInfo
) -> None:
    with connected(server) as connection:
        refused = patch(connection, server, opened.id, 7, DATA[7:])
        assert (refused.status, b"offset" in refused.read()) == (416, True)
        answer = patch(connection, server, opened.id, 0, DATA)
        assert answer.status == 200
        answer.read()


def test_a_body_larger_than_the_upload_is_refused_and_the_connection_stays_usable(
    server: Server, opened: UploadInfo
) -> None:
    with connected(server) as connection:
        refused = patch(connection, server, opened.id, 0, DATA + DATA)
        assert (refused.status, b"more bytes than" in refused.read()) == (413, True)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"


def test_bytes_with_another_digest_than_announced_are_not_kept(server: Server, opened: UploadInfo) -> None:
    with connected(server) as connection:
        assert patch(connection, server, opened.id, 0, bytes(len(DATA))).status == 200
    registry = server.registry()
    with pytest.raises(DigestMismatch):
        registry.uploads.finish(registry.uploads.open(NAME, DIGEST, len(DATA)))
    assert not registry.files.has(NAME, DIGEST)


def test_bytes_before_a_broken_connection_are_kept_and_the_upload_continues(
    server: Server, opened: UploadInfo
) -> None:
    registry = server.registry()
    with connected(server) as connection:
        begin(connection, server, opened.id).sendall(DATA[: 2 << 20])

    until(
        lambda: registry.uploads.list().items[0],
        lambda session: (session.offset, session.is_held) == (2 << 20, False),
    )
    assert registry.uploads.open(NAME, DIGEST, len(DATA)).offset == 2 << 20
    upload(registry, NAME, MemoryContent({"weights": DATA}), "weights", DIGEST)
    assert registry.files.has(NAME, DIGEST)


def test_a_stalled_large_body_gets_a_response_and_received_bytes_are_kept(
    server: Server, opened: UploadInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_pace, "IDLE_SECONDS", 0.3)
    with connected(server) as connection:
        begin(connection, server, opened.id).sendall(DATA[: 2 << 20])
        answer = connection.getresponse()
        # The rest of the body follows on the connection, and must not be read as a request.
        assert (answer.status, answer.will_close) == (408, True)
    assert server.registry().uploads.open(NAME, DIGEST, len(DATA)).offset == 2 << 20


def test_a_request_behind_a_body_that_arrives_too_slowly_is_not_answered(
    server: Server, opened: UploadInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_pace, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(body_pace, "MIN_BYTES_PER_SECOND", 1 << 40)
    request = b"GET /healthz HTTP/1.1\r\nHost: adaptry\r\n\r\n"
    body = (request * (len(DATA) // len(request) + 1))[: len(DATA)]  # nor may it be read as a request
    with connected(server) as connection:
        sender = begin(connection, server, opened.id)
        sent = 1 << 20
        sender.sendall(body[:sent])
        while not select.select([sender], [], [], 0.05)[0] and sent < len(body) - (1 << 20):
            sent += sender.send(body[sent : sent + len(request)])
        answers = sender.recv(1 << 16)
        with suppress(ConnectionError):
            sender.sendall(body[sent:] + request)
        with suppress(ConnectionError):
            while data := sender.recv(1 << 16):
                answers += data
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answers.lower()


def test_the_bytes_of_a_large_body_are_counted(server: Server, opened: UploadInfo) -> None:
    with connected(server) as connection:
        assert patch(connection, server, opened.id, 0, DATA).status == 200

    def received() -> float:
        with connected(server) as other:
            other.request("GET", "/metrics", headers={"Authorization": f"Bearer {server.admin}"})
            lines = other.getresponse().read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("adaptry_received_bytes"))

    until(received, lambda found: found >= len(DATA))


@pytest.mark.parametrize(("sent", "error"), [(-1, Unavailable), (1, TooLarge)])
def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    server: Server, opened: UploadInfo, sent: int, error: type[Exception]
) -> None:
    class Changed(MemoryContent):
        def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
            yield (DATA + b"x")[start : len(DATA) + sent]

    registry = server.registry()
    with pytest.raises(error, match="may have changed"):
        upload(registry, NAME, Changed({"weights": DATA}), "weights", DIGEST, retry=NO_WAIT)
    assert not registry.files.has(NAME, DIGEST)


def test_a_client_stops_at_once_if_its_file_cannot_be_read(server: Server) -> None:
    class Unreadable(MemoryContent):
        def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
            yield DATA[start : 2 << 20]
            raise PermissionError("no longer readable")

    registry = server.registry()
    registry.adapters.create(NAME, AdapterEdit())
    with pytest.raises(PermissionError, match="no longer readable"):
        upload(registry, NAME, Unreadable({"weights": DATA}), "weights", DIGEST)
