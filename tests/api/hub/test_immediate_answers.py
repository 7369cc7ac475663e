"""Responses from memory keep the order of the requests on a connection, and have the same bytes as other
responses.
"""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Callable
from http.client import HTTPResponse, parse_headers
from typing import IO
from urllib.parse import urlsplit

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import StateChange
from adaptry.testing.postgres import PostgresServer
from adaptry_api.commit_watch import CommitWatch, OnCommit
from adaptry_api.deadlines import DeadlineProtocol
from adaptry_api.immediate_answers import EncodedAnswer, FoundAnswer, ImmediateAnswers
from adaptry_api.testing import Server, until

from .pushed import CONFIG

pytest.importorskip("adaptry_api.deadlines", reason="httptools is not installed")
NAME = AdapterName.parse("acme/tone")
_FILE, _TEXT, _JSON = "application/octet-stream", "text/plain; charset=utf-8", "application/json"
_OTHER_EACH_TIME = {"request-id", "x-request-id", "date"}
_USUAL = "Cache-Control: no-cache\r\n"  # a header for which no request is answered from memory


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, start: Callable[..., Server]) -> Server:
    """On PostgreSQL, answers are held until the last commit is known."""
    if request.param == "sqlite":
        return start()
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return start(catalog=postgres.url(postgres.create_migrated()))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each request was answered from memory: after it was parsed, or because its bytes equal those of an
    earlier one.
    """
    ways, answered = dict[str, str](), list[str]()
    after_parsing, again, send = (
        ImmediateAnswers.__call__,
        ImmediateAnswers.find_repeated,
        ImmediateAnswers.send,
    )

    def noted(way: str, found: FoundAnswer | None) -> FoundAnswer | None:
        if found is not None:
            ways[found.id] = way
        return found

    def sent(answers: ImmediateAnswers, found: FoundAnswer) -> EncodedAnswer | None:
        if (answer := send(answers, found)) is not None:
            answered.append(ways[found.id])
        return answer

    monkeypatch.setattr(
        ImmediateAnswers, "__call__", lambda *given: noted("after parsing", after_parsing(*given))
    )
    monkeypatch.setattr(ImmediateAnswers, "find_repeated", lambda *given: noted("again", again(*given)))
    monkeypatch.setattr(ImmediateAnswers, "send", sent)
    return answered


def requests_of(server: Server, tone: Adapter) -> tuple[str, list[tuple[str, str]]]:
    """The requests of a snapshot, the last of which read a file."""
    push(server.registry(), tone, NAME)
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
    """Reads the next response, and returns its type."""
    assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = parse_headers(stream)
    stream.read(int(headers["Content-Length"]))
    return str(headers["Content-Type"])


def test_an_answer_from_memory_has_the_bytes_of_the_usual_one(
    server: Server, tone: Adapter, at_once: list[str]
) -> None:
    _, asked = requests_of(server, tone)
    with connect(server) as connection:
        for method, path in asked:

            def ask_thrice(method: str = method, path: str = path) -> list[str]:
                at_once.clear()
                connection.sendall(request(server, method, path, _USUAL))
                usual = received(connection, method)
                assert usual[0] == 200
                assert not at_once
                trace = str(uuid.uuid4())
                for more in (f"X-Amzn-Trace-Id: {trace}\r\n", f"X-Amzn-Trace-Id: {trace[::-1]}\r\n"):
                    connection.sendall(request(server, method, path, more))
                    assert received(connection, method) == usual
                return at_once

            # The server may commit something in the meantime, and then looks the repository up again.
            assert "again" in until(ask_thrice, lambda found: len(found) == 2)


def test_requests_that_are_sent_together_are_answered_in_their_order(
    server: Server, tone: Adapter, at_once: list[str]
) -> None:
    info, asked = requests_of(server, tone)
    method, file = asked[-1]
    paths = ["/healthz", file, "/healthz", file, info, "/readyz", file]

    def ask_together() -> list[str]:
        at_once.clear()
        with connect(server) as connection:
            connection.sendall(b"".join(request(server, method, path) for path in paths))
            stream = connection.makefile("rb")
            types = [type_of_next(stream) for _ in paths]
        assert types == [_TEXT, _FILE, _TEXT, _FILE, _JSON, _TEXT, _FILE]
        return at_once

    assert "after parsing" in until(ask_together, bool)


def test_an_answer_from_memory_follows_an_answer_that_is_still_held_back(
    server: Server, tone: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop reads connections before the next turn of the event loop, which sends the head."""
    file = requests_of(server, tone)[1][-1][1]
    complete, came = DeadlineProtocol.on_response_complete, list[str]()

    def receive_the_next(protocol: DeadlineProtocol) -> None:
        complete(protocol)
        if protocol.cycle is not None and protocol.cycle.scope["method"] == "HEAD" and not came:
            came.append("next")
            protocol.data_received(request(server, "GET", "/healthz"))

    monkeypatch.setattr(DeadlineProtocol, "on_response_complete", receive_the_next)
    with connect(server) as connection:
        connection.sendall(request(server, "HEAD", file, _USUAL))
        stream = connection.makefile("rb")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        assert parse_headers(stream)["Content-Type"] == _FILE
        assert type_of_next(stream) == _TEXT


def test_the_last_answer_of_a_connection_closes_it(server: Server, tone: Adapter) -> None:
    _, asked = requests_of(server, tone)
    method, file = asked[-1]
    with connect(server) as connection:
        connection.sendall(
            request(server, method, file) + request(server, method, file, "Connection: close\r\n")
        )
        stream = connection.makefile("rb").read()
    assert stream.count(b"HTTP/1.1 200 OK\r\n") == 2


def test_a_request_with_the_bytes_of_an_earlier_one_is_authorized_again(
    server: Server, tone: Adapter, at_once: list[str]
) -> None:
    _, asked = requests_of(server, tone)
    method, file = asked[-1]
    reader, other = (server.token(name, "reader", ("acme",)) for name in ("ann", "ben"))
    registry = server.registry()

    def status(connection: socket.socket, token: str) -> int:
        connection.sendall(request(server, method, file).replace(server.admin.encode(), token.encode()))
        return received(connection, method)[0]

    with connect(server) as connection:
        for token in (reader, other):

            def ask(token: str = token) -> list[str]:
                assert status(connection, token) == 200
                return at_once[-1:]

            assert until(ask, lambda found: found == ["again"])
            at_once.clear()
        (ann,) = [one for one in registry.tokens.list().items if one.principal == "ann"]
        registry.tokens.revoke(ann.id)
        assert (status(connection, reader), status(connection, other)) == (401, 200)
        version = registry.versions.list(NAME).items[0]
        change = StateChange(state="revoked", reason="leaks")
        registry.versions.set_state(NAME, version.digest, change, 0)
        assert (status(connection, other), status(connection, server.admin)) == (403, 200)


@pytest.mark.parametrize("path", ["/api/v1/adapters/acme/tone/versions/1", "/api/v1/search?q=rank%3E1"])
def test_versions_and_searches_in_memory_have_the_bytes_of_the_usual_answers(
    server: Server, tone: Adapter, at_once: list[str], path: str
) -> None:
    push(server.registry(), tone, NAME)
    with connect(server) as connection:

        def ask(more: str = "") -> list[str]:
            connection.sendall(request(server, "GET", path, _USUAL + more))
            usual = received(connection, "GET")
            at_once.clear()
            for _ in range(2):
                connection.sendall(request(server, "GET", path, more))
                assert received(connection, "GET") == usual
            tags.update(value for name, value in usual[1] if name == "etag")
            statuses.add(usual[0])
            return at_once

        tags, statuses = set[str](), set[int]()
        until(ask, lambda found: len(found) == 2)
        for tag in sorted(tags):
            until(lambda: ask(f"If-None-Match: {tag}\r\n"), lambda found: len(found) == 2)  # noqa: B023
    assert statuses == ({200, 304} if tags else {200})


@pytest.mark.slow
class TestHeldAnswers:
    """On PostgreSQL, other requests may follow a request, or its connection may end, while its response is
    held.
    """

    @pytest.fixture
    def server(self, start: Callable[..., Server], postgres: PostgresServer) -> Server:
        return start(catalog=postgres.url(postgres.create_migrated()))

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[OnCommit]:
        """Functions that wait for the last commit, which is not queried until a test calls `ask_again`."""
        asked: list[OnCommit] = []
        monkeypatch.setattr(CommitWatch, "ask", lambda watch, then: asked.append(then))
        return asked

    @pytest.fixture
    def file(self, server: Server, tone: Adapter, at_once: list[str]) -> str:
        """The address of a small file, which is answered from memory."""
        _, asked = requests_of(server, tone)
        file = asked[-1][1]
        with connect(server) as connection:

            def ask() -> list[str]:
                at_once.clear()
                connection.sendall(request(server, "GET", file))
                assert received(connection, "GET")[0] == 200
                return at_once

            until(ask, lambda found: found == ["again"])
        return file

    def test_a_second_request_makes_both_be_answered_in_the_usual_way(
        self, server: Server, file: str, asked: list[OnCommit]
    ) -> None:
        with connect(server) as connection:
            stream = connection.makefile("rb")
            connection.sendall(request(server, "GET", file))
            until(lambda: len(asked), bool)
            connection.sendall(request(server, "GET", "/healthz"))
            assert [type_of_next(stream), type_of_next(stream)] == [_FILE, _TEXT]
            connection.sendall(request(server, "GET", "/readyz"))
            assert type_of_next(stream) == _TEXT

    def test_a_stopping_server_first_answers_a_held_request(
        self, server: Server, file: str, asked: list[OnCommit], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        protocols: list[DeadlineProtocol] = []
        made = DeadlineProtocol.connection_made

        def make(protocol: DeadlineProtocol, transport: asyncio.BaseTransport) -> None:
            protocols.append(protocol)
            made(protocol, transport)

        monkeypatch.setattr(DeadlineProtocol, "connection_made", make)
        with connect(server) as connection:
            connection.sendall(request(server, "GET", file))
            until(lambda: len(asked), bool)
            protocols[0].loop.call_soon_threadsafe(protocols[0].shutdown)
            assert received(connection, "GET")[0] == 200

    def test_a_disconnected_client_gets_no_answer(
        self, server: Server, file: str, asked: list[OnCommit], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with connect(server) as connection:
            connection.sendall(request(server, "GET", file))
            until(lambda: len(asked), bool)
        monkeypatch.undo()
        asked[0](None)
        assert server.call("GET", file).status == 200

    def test_a_commit_in_the_meantime_is_in_the_answer(
        self, server: Server, file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer from memory is possible, but it is not the one that is sent."""
        token = server.token("ann", "reader", ("acme",))
        assert [server.call("GET", file, token=token).status for _ in range(3)] == [200] * 3
        registry = server.registry()
        version = registry.versions.list(NAME).items[0]
        held, ask = list[tuple[CommitWatch, OnCommit]](), CommitWatch.ask
        monkeypatch.setattr(CommitWatch, "ask", lambda watch, then: held.append((watch, then)))
        with connect(server) as connection:
            connection.sendall(request(server, "GET", file).replace(server.admin.encode(), token.encode()))
            until(lambda: len(held), bool)
            monkeypatch.setattr(CommitWatch, "ask", ask)
            change = StateChange(state="revoked", reason="leaks")
            registry.versions.set_state(NAME, version.digest, change, 0)
            watch, then = held[0]
            loop = watch._remote._loop  # type: ignore[union-attr]  # of the server, in its thread
            assert loop is not None
            loop.call_soon_threadsafe(watch.ask, then)
            assert received(connection, "GET")[0] == 403
