"""The client with servers that fail, disappear, are newer, are behind proxies, or are not trustworthy."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adaptry import __version__
from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Invalid, NotFound, ProtocolMismatch, Unauthenticated, Unavailable
from adaptry.core.http import open_pool
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry import protocol
from adaptry.registry.http import HttpRegistry
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.records import AdapterEdit
from adaptry.testing.certificates import self_signed
from adaptry.testing.fault_proxy import FaultProxy, ProxyFault, run_proxy
from adaptry.testing.samples import large_lora
from adaptry_api.testing import Server

NAME = AdapterName.parse("acme/tone")
ADAPTER = {"name": "acme/tone", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
SPEAKS = {protocol.API_HEADER: str(protocol.API), "Content-Type": "application/json"}


class Scripted(ThreadingHTTPServer):
    """A server that returns scripted responses, and records the requests."""

    daemon_threads = True

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.reply = (status, headers, body)
        self.heard: list[tuple[str, str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), Speaker)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Speaker(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.server.heard.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.server.reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Writes no log."""


@contextmanager
def scripted(
    status: int = 200,
    headers: dict[str, str] = SPEAKS,
    body: object = ADAPTER,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Scripted]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    server = Scripted(status, headers, text)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_request_has_the_client_and_the_api_version() -> None:
    with scripted() as server:
        HttpRegistry(server.url, "adr_pat_secret").adapters.get(NAME)
        _, path, headers = server.heard[0]
    assert path == "/api/v1/adapters/acme/tone"
    assert headers["User-Agent"] == f"adaptry/{__version__}"
    assert headers[protocol.API_HEADER] == str(protocol.API)
    assert headers[protocol.SCHEMA_HEADER] == "1"
    assert headers["Authorization"] == "Bearer adr_pat_secret"


def test_fields_that_a_newer_server_adds_are_ignored() -> None:
    with scripted(body={**ADAPTER, "stars": 7, "owner": {"team": "x"}}) as server:
        assert HttpRegistry(server.url).adapters.get(NAME).name == NAME


@pytest.mark.parametrize(
    ("headers", "advice"),
    [
        ({**SPEAKS, protocol.API_HEADER: str(protocol.API - 1)}, "upgrade the server"),
        (
            {**SPEAKS, protocol.API_HEADER: "9", protocol.OLDEST_HEADER: str(protocol.API + 1)},
            "upgrade adaptry here",
        ),
    ],
)
def test_an_incompatible_server_is_reported(headers: dict[str, str], advice: str) -> None:
    with scripted(headers=headers) as server, pytest.raises(ProtocolMismatch, match=advice):
        HttpRegistry(server.url).adapters.get(NAME)


def test_a_newer_server_that_supports_the_clients_version_is_accepted() -> None:
    with scripted(
        headers={**SPEAKS, protocol.API_HEADER: "9", protocol.OLDEST_HEADER: str(protocol.API)}
    ) as server:
        assert HttpRegistry(server.url).adapters.get(NAME).name == NAME


def test_an_answer_of_another_kind_is_reported_as_a_whole() -> None:
    with (
        scripted(body=[]) as server,
        pytest.raises(ProtocolMismatch, match=r"\(the whole answer: Input .* upgrade"),
    ):
        HttpRegistry(server.url).adapters.get(NAME)


def test_a_server_that_does_not_know_a_parameter_is_of_another_version(server: Server) -> None:
    connection = Connection(server.url, server.admin, open_pool(server.url, None, None))
    with pytest.raises(Invalid, match=r"'limits'.* upgrade the older of the two"):
        connection.request_bytes("GET", api_path("adapters"), query={"limits": 3})


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"", b'{"name": 3}'])
def test_an_unreadable_answer_is_reported(body: bytes) -> None:
    with scripted(body=body) as server, pytest.raises(ProtocolMismatch, match="cannot read"):
        HttpRegistry(server.url).adapters.get(NAME)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthenticated), (404, NotFound), (500, Unavailable), (502, Unavailable), (418, Invalid)],
)
def test_an_error_without_our_code_is_interpreted_by_its_status(status: int, kind: type[Exception]) -> None:
    headers = {**SPEAKS, "Content-Type": "text/html"}
    with scripted(status, headers, b"<h1>nginx</h1>") as server, pytest.raises(kind):
        HttpRegistry(server.url).adapters.get(NAME)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 405, 418, 500, 502])
def test_an_answer_of_another_server_does_not_show_what_exists(status: int) -> None:
    """A proxy answers 404 for every path while no server is behind it."""
    with (
        scripted(status, {"Content-Type": "text/html"}, b"<h1>404 page not found</h1>") as server,
        pytest.raises(Unavailable, match="like an Adaptry server"),
    ):
        HttpRegistry(server.url).adapters.get(NAME)


def test_a_response_that_is_cut_off_within_its_headers_does_not_count(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    with run_proxy(FaultProxy("127.0.0.1", port)) as proxy:
        proxy.arm(ProxyFault("close", after=60), times=None)
        registry = HttpRegistry(f"http://127.0.0.1:{proxy.port}", server.admin)
        for _ in range(_MORE_THAN_SOCKETS):
            with pytest.raises(Unavailable, match="broke while it answered"):
                registry.adapters.list()
        proxy.disarm()
        assert not registry.adapters.list().items


def test_a_server_that_does_not_respond_gets_the_request_once_more(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    with run_proxy(FaultProxy("127.0.0.1", port)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        connection = Connection(url, server.admin, open_pool(url, None, None))
        proxy.arm(ProxyFault("blackhole"), times=1)
        assert connection.request_bytes("GET", api_path("adapters"), timeout=2.0)
        proxy.arm(ProxyFault("blackhole"), times=None)
        asked = proxy.connections
        with pytest.raises(Unavailable, match="cannot reach"):
            connection.request_bytes("GET", api_path("adapters"), timeout=0.1)
        assert proxy.connections <= asked + 2


_MORE_THAN_SOCKETS = 20


def test_a_client_keeps_free_connections_after_many_answers_of_other_servers() -> None:
    with scripted(200, {"Content-Type": "text/html"}, b"<h1>maintenance</h1>") as server:
        registry = HttpRegistry(server.url)
        for _ in range(_MORE_THAN_SOCKETS):
            with pytest.raises(Unavailable, match="like an Adaptry server"):
                registry.adapters.get(NAME)


def test_a_client_keeps_free_connections_after_many_abandoned_downloads(
    server: Server, tmp_path: Path
) -> None:
    registry = server.registry()
    version = push(registry, open_dir(large_lora(tmp_path / "large")), NAME).version
    for _ in range(_MORE_THAN_SOCKETS):
        pieces = registry.files.read(NAME, version.digest, "adapter_model.safetensors")
        assert next(pieces)
        del pieces
    assert registry.adapters.get(NAME).name == NAME


def test_an_unknown_error_code_is_interpreted_by_its_status() -> None:
    problem = {"code": "gone_to_lunch", "detail": "back at two", "status": 404}
    headers = {**SPEAKS, "Content-Type": protocol.PROBLEM}
    with scripted(404, headers, problem) as server, pytest.raises(NotFound, match="back at two"):
        HttpRegistry(server.url).adapters.get(NAME)


def test_a_redirect_is_not_followed_because_it_would_reveal_the_token() -> None:
    headers = {**SPEAKS, "Location": "https://elsewhere.example/"}
    with scripted(302, headers, b"") as server, pytest.raises(Unavailable, match=r"elsewhere\.example"):
        HttpRegistry(server.url, "secret").adapters.get(NAME)


@pytest.mark.parametrize(
    ("call", "is_repeated"),
    [
        (lambda registry: registry.adapters.get(NAME), True),
        (lambda registry: registry.adapters.create(NAME, AdapterEdit()), True),
        (lambda registry: registry.metrics.log(Ref(NAME), {"accuracy": 0.5}), True),
        (lambda registry: registry.adapters.rename(NAME, AdapterName.parse("acme/voice")), False),
        (lambda registry: registry.versions.count_download(Ref(NAME)), False),
    ],
    ids=["reading", "creating", "logging", "renaming", "counting"],
)
def test_idempotent_requests_are_retried_after_a_proxys_503(
    call: Callable[[HttpRegistry], object], is_repeated: bool
) -> None:
    with scripted(503, {"Content-Type": "text/plain"}, b"") as server:
        with pytest.raises(Unavailable):
            call(HttpRegistry(server.url))
        assert (len(server.heard) > 1) == is_repeated


def test_a_creation_is_retried_with_its_first_key_and_keys_are_unique() -> None:
    with scripted(503, {"Content-Type": "text/plain"}, b"") as server:
        for _ in range(2):
            with pytest.raises(Unavailable):
                HttpRegistry(server.url).adapters.create(NAME, AdapterEdit())
        keys = [headers["Idempotency-Key"] for _, _, headers in server.heard]
    half = len(keys) // 2
    assert (len(set(keys[:half])), len(set(keys[half:])), len(set(keys))) == (1, 1, 2)


def test_the_error_names_a_server_that_cannot_be_reached() -> None:
    with socket.socket() as taken:
        taken.bind(
            ("127.0.0.1", 0)
        )  # bound but not listening: connections are refused, and no other process gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"{url}.*is the server running"):
            HttpRegistry(url).adapters.get(NAME)


@pytest.mark.parametrize(
    "url", ["ftp://x", "acme", "http://", "http://a:b@x", "http://x?y", "http://x:99999", ""]
)
def test_an_invalid_address_is_refused_immediately(url: str) -> None:
    with pytest.raises(Invalid, match="address"):
        HttpRegistry(url)


@pytest.mark.parametrize("token", ["adr_pat_x\n", "adr_pat_é", "a\x00b"])
def test_a_token_with_extra_text_is_refused_immediately(token: str) -> None:
    with pytest.raises(Invalid, match="token"):
        HttpRegistry("http://adapters.example", token)


def test_a_server_under_a_prefix_of_a_host_is_reached_there() -> None:
    with scripted() as server:
        HttpRegistry(f"{server.url}/adaptry/").adapters.get(NAME)
        assert server.heard[0][1] == "/adaptry/api/v1/adapters/acme/tone"


def test_a_proxy_carries_requests_unless_the_host_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted() as proxy:
        HttpRegistry("http://adapters.example", proxy=proxy.url).adapters.get(NAME)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        HttpRegistry("http://adapters.example").adapters.get(NAME)
        assert [path for _, path, _ in proxy.heard] == [
            "http://adapters.example/api/v1/adapters/acme/tone"
        ] * 2
        with scripted() as direct:
            HttpRegistry(direct.url).adapters.get(NAME)  # NO_PROXY excepts the loopback address
        assert len(proxy.heard) == 2


def test_the_error_names_a_proxy_that_does_not_respond() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match="through the proxy"):
            HttpRegistry("http://adapters.example", proxy=proxy).adapters.get(NAME)


def test_a_certificate_is_trusted_only_where_its_authority_was_given(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with scripted(tls=certificate.server()) as server:
        url = server.url.replace("http:", "https:")
        assert HttpRegistry(url, ca_bundle=str(certificate.path)).adapters.get(NAME).name == NAME
        with pytest.raises(Unavailable, match="cannot trust"):
            HttpRegistry(url).adapters.get(NAME)


def test_https_to_a_server_without_tls_names_the_right_scheme() -> None:
    with scripted() as server, pytest.raises(Unavailable, match=r"does not use TLS: .* write http://"):
        HttpRegistry(server.url.replace("http:", "https:")).adapters.get(NAME)


@pytest.mark.parametrize("text", [None, "not a certificate"])
def test_the_error_names_an_unreadable_certificate_bundle(tmp_path: Path, text: str | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if text is not None:
        bundle.write_text(text)
    with pytest.raises(Invalid, match=r"bundle\.pem"):
        HttpRegistry("https://adapters.example", ca_bundle=str(bundle))


def test_many_threads_share_one_client(start: Callable[..., Server]) -> None:
    registry = start().registry()

    def work(number: int) -> bool:
        name = AdapterName.parse(f"acme/tone-{number}")
        registry.adapters.create(name, AdapterEdit())
        return registry.adapters.get(name).name == name

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(work, range(20)))
    assert len(registry.adapters.list(limit=200).items) == 20


def test_the_reason_of_a_broken_connection_is_that_of_the_system() -> None:
    """urllib3's own text is Python's tuple of the reason and the error."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def reset() -> None:
            while True:  # the client tries again
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.recv(1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        with pytest.raises(Unavailable, match=r": Connection reset by peer; is the server running\?$"):
            HttpRegistry(url).events.read()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
