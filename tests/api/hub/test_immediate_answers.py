"""Answers from memory on a connection: in their turn, and with the bytes of the usual answers."""

from __future__ import annotations

import json
import socket
from http.client import HTTPResponse, parse_headers
from typing import IO
from urllib.parse import urlsplit

import pytest
from starlette.types import Scope

from adaptry.adapters.adapter import Adapter
from adaptry.operations.transfer import push
from adaptry_api.immediate_answers import EncodedAnswer, ImmediateAnswers
from adaptry_api.testing import Server, until

from .pushed import CONFIG

pytest.importorskip("adaptry_api.deadlines", reason="httptools is not installed")
_FILE, _TEXT, _JSON = "application/octet-stream", "text/plain; charset=utf-8", "application/json"
_OTHER_EACH_TIME = {"request-id", "x-request-id", "date"}
_USUAL = "Cache-Control: no-cache\r\n"  # a header for which no request is answered from memory


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The requests that were answered from memory."""
    answered: list[tuple[str, str]] = []
    answer = ImmediateAnswers.__call__

    def noted(self: ImmediateAnswers, scope: Scope) -> EncodedAnswer | None:
        found = answer(self, scope)
        if found is not None:
            answered.append((scope["method"], scope["path"]))
        return found

    monkeypatch.setattr(ImmediateAnswers, "__call__", noted)
    return answered


def requests_of(server: Server, tone: Adapter) -> tuple[str, list[tuple[str, str]]]:
    """The requests of a snapshot, of which the last ones are those of a file."""
    push(server.registry(), tone, "acme/tone")
    info = "/api/models/acme/tone/revision/main"
    commit = json.loads(server.call("GET", info).body)["sha"]
    file = f"/acme/tone/resolve/{commit}/{CONFIG}"
    server.call("GET", file)  # small files are read at their first request
    tree = f"/api/models/acme/tone/tree/{commit}?recursive=true&expand=false"
    return info, [("GET", info), ("GET", tree), ("HEAD", file), ("GET", file)]


def request(server: Server, method: str, path: str, more: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin}\r\n{more}\r\n"
    return head.encode()


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30)


def received(connection: socket.socket, method: str) -> tuple[int, list[tuple[str, str]], bytes]:
    answer = HTTPResponse(connection, method=method)
    answer.begin()
    headers = [one for one in answer.getheaders() if one[0] not in _OTHER_EACH_TIME]
    return answer.status, headers, answer.read()


def type_of_next(stream: IO[bytes]) -> str:
    """The type of the next answer, which is read."""
    assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = parse_headers(stream)
    stream.read(int(headers["Content-Length"]))
    return str(headers["Content-Type"])


def test_an_answer_from_memory_has_the_bytes_of_the_usual_one(
    server: Server, tone: Adapter, at_once: list[tuple[str, str]]
) -> None:
    _, asked = requests_of(server, tone)
    with connect(server) as connection:
        for method, path in asked:

            def ask_both(method: str = method, path: str = path) -> list[tuple[str, str]]:
                at_once.clear()
                connection.sendall(request(server, method, path, _USUAL))
                usual = received(connection, method)
                assert usual[0] == 200
                assert not at_once
                connection.sendall(request(server, method, path))
                assert received(connection, method) == usual
                return at_once

            # The server may commit something between the two, and then looks the repository up again.
            assert until(ask_both, bool) == [(method, path.partition("?")[0])]


def test_requests_that_are_sent_together_are_answered_in_their_order(
    server: Server, tone: Adapter, at_once: list[tuple[str, str]]
) -> None:
    info, asked = requests_of(server, tone)
    method, file = asked[-1]
    paths = [file, "/healthz", file, info, "/readyz", file]

    def ask_together() -> list[tuple[str, str]]:
        at_once.clear()
        with connect(server) as connection:
            connection.sendall(b"".join(request(server, method, path) for path in paths))
            stream = connection.makefile("rb")
            types = [type_of_next(stream) for _ in paths]
        assert types == [_FILE, _TEXT, _FILE, _JSON, _TEXT, _FILE]
        return at_once

    assert until(ask_together, bool)[0] == (method, file)


def test_the_last_answer_of_a_connection_closes_it(server: Server, tone: Adapter) -> None:
    _, asked = requests_of(server, tone)
    method, file = asked[-1]
    with connect(server) as connection:
        connection.sendall(
            request(server, method, file) + request(server, method, file, "Connection: close\r\n")
        )
        stream = connection.makefile("rb").read()
    assert stream.count(b"HTTP/1.1 200 OK\r\n") == 2
