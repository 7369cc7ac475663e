"""HTTP requests to an engine: the rest of one response is never read as the start of the next, and an engine
may close a connection after any response.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
import urllib3

from adaptry.integrations.engine_probe import probe_engine
from adaptry.integrations.serving.background_server import BackgroundServer
from adaptry.integrations.serving.engines import ENGINES, EngineClient
from adaptry.integrations.serving.proxy.engine import ProxiedEngine
from adaptry.integrations.serving.proxy.server import ReverseProxy

ANSWERS = {
    b"/version": (200, b'{"version": "0.33.0"}'),
    b"/metrics": (200, b""),
    b"/v1/models": (200, b'{"data": [{"id": "org/tiny", "root": "/models/tiny"}]}'),
}


def serve(listening: socket.socket) -> None:
    """Sends the body only after the client has sent more, since the body of a slow server may come late."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            while request := lines.readline():
                while lines.readline().strip():
                    pass
                status, body = ANSWERS.get(request.split()[1], (404, b'{"detail":"Not Found"}'))
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode())
                if status != 200:
                    select.select([connection], [], [], 5)
                try:
                    connection.sendall(body)
                except OSError:
                    break


def test_an_unread_response_does_not_affect_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        found = probe_engine(f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert (str(found.runtime), found.models) == ("vllm@0.33.0", ("/models/tiny", "org/tiny"))


class _OneAnswer(BaseHTTPRequestHandler):
    """Answers the first request of a connection, and closes the connection when the next one comes, like a
    server whose timeout for idle connections expires at that moment.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True
        self.connection.settimeout(60)
        self.rfile.peek(1)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def closing() -> Iterator[EngineClient]:
    with BackgroundServer("127.0.0.1", 0, _OneAnswer) as server:
        yield EngineClient(server.url)


def test_an_engine_may_close_a_connection_after_any_answer(closing: EngineClient) -> None:
    assert [closing.post("/v1/completions", {}).status for _ in range(3)] == [200] * 3


def test_the_proxys_clients_do_not_notice_that_an_engine_closes_its_connections(
    closing: EngineClient,
) -> None:
    engine = ProxiedEngine(ENGINES["vllm"](closing, None, {}), {})
    with ReverseProxy("127.0.0.1", 0, engine) as proxy, urllib3.PoolManager() as clients:
        url = f"{proxy.url}/v1/completions"
        answers = [clients.request("POST", url, json={"model": "m"}, retries=False) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
