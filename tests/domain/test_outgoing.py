"""The server's own HTTP requests: which addresses it connects to, and its timeouts."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.outgoing_requests.addresses import is_public, parse_network
from adaptry.core.outgoing_requests.connector import GuardedConnector, OutgoingRefused

LOOPBACK = (parse_network("127.0.0.0/8"),)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[bytes]]]:
    """Runs a server on loopback that answers each connection with `answer`; yields its port and the requests
    that it received.
    """
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        received.append(_request(connection))
                        answer(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listening.getsockname()[1], received
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _request(connection: socket.socket) -> bytes:
    """Reads the head of a request, and as much of its body as the head announces."""
    with connection.makefile("rb") as stream:
        lines = list(iter(stream.readline, b"\r\n"))
        sizes = [int(line.split(b":")[1]) for line in lines if line.startswith(b"Content-Length")]
        return b"".join([*lines, b"\r\n", stream.read(sum(sizes))])


def send(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1"),
        *("fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2001:db8::1", "fe80::1%eth0", "64:ff9b::a9fe:a9fe"),
        *("::127.0.0.1", "64:ff9b:1::7f00:1", "3fff::1", "5f00::1", "192.88.99.1", "::ffff:0:0"),
    ],
)
def test_no_private_address_counts_as_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"]
)
def test_a_server_on_this_machine_gets_no_connection(host: str) -> None:
    with (
        answering(send(OK)) as (port, received),
        pytest.raises(OutgoingRefused, match="not a public address"),
    ):
        GuardedConnector().request("GET", f"https://{host}:{port}/")
    assert received == []


def test_a_refusal_reveals_nothing_about_a_name() -> None:
    with pytest.raises(OutgoingRefused) as refused:
        GuardedConnector().request("GET", "https://localhost/")
    assert "127.0.0.1" not in refused.value.public_message and "::1" not in refused.value.public_message


def test_an_allowed_network_is_reached_also_by_plain_http() -> None:
    with answering(send(OK)) as (port, received):
        answer = GuardedConnector(LOOPBACK).request(
            "POST", f"http://127.0.0.1:{port}/a?b=c", body=b"{}", headers={"Content-Type": "application/json"}
        )
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/plain", b"ok")
    assert received[0].startswith(b"POST /a?b=c HTTP/1.1\r\n") and received[0].endswith(b"\r\n\r\n{}")


def test_plain_http_is_refused_outside_allowed_networks() -> None:
    with pytest.raises(OutgoingRefused, match="plain http"):
        GuardedConnector(LOOPBACK).request("GET", "http://1.1.1.1/")


def test_a_redirect_is_returned_and_not_followed() -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    with answering(send(redirect)) as (port, received):
        answer = GuardedConnector(LOOPBACK).request("GET", f"http://127.0.0.1:{port}/")
    assert (answer.status, len(received)) == (302, 1)


def test_a_name_is_resolved_once_and_its_meaning_cannot_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker's name server first returns an allowed address, then a different one (rebinding)."""
    real, asked = socket.getaddrinfo, []

    def rebinding(host: object, *rest: object, **options: object) -> object:
        if host != "rebinding.example":
            return real(host, *rest, **options)  # type: ignore[arg-type]
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return real(address, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with answering(send(OK)) as (port, received):
        allowed = (parse_network("127.0.0.1"),)
        GuardedConnector(allowed).request("GET", f"http://rebinding.example:{port}/")
    assert asked == ["rebinding.example"]
    assert f"Host: rebinding.example:{port}".encode() in received[0]


def test_one_private_address_among_several_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: object, port: object, **options: object) -> object:
        return [(2, 1, 6, "", ("140.82.112.3", port)), (2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(OutgoingRefused, match=r"10\.0\.0\.1 is not a public address"):
        GuardedConnector().request("GET", "https://both.example/")


def test_a_response_that_is_too_long_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000
    with answering(send(endless)) as (port, _), pytest.raises(Unavailable, match="more than 1000 bytes"):
        GuardedConnector(LOOPBACK, max_bytes=1000).request("GET", f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_sends_byte_after_byte_is_cut_off(begun: bytes) -> None:
    """Every single byte arrives in time, but the whole response never does."""
    is_over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(begun)
        while not is_over.wait(0.02):
            connection.sendall(b"x")

    with answering(drip) as (port, _):
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
            GuardedConnector(LOOPBACK, seconds=0.3).request("GET", f"http://127.0.0.1:{port}/")
        is_over.set()


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_a_broken_answer_is_unavailable(answer: bytes) -> None:
    with answering(send(answer)) as (port, _), pytest.raises(Unavailable):
        GuardedConnector(LOOPBACK).request("GET", f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://a.example/", "file:///etc/passwd", "https://", "https://user:secret@a.example/"),
        *("https://a.example/#x", "https://a.example:99999/", "https://a.example/\r\nX: y", "//a.example/"),
        *("https://a.example/" + "x" * 3000, "https://münchen.example/", "https://[::1"),
    ],
)
def test_other_urls_are_refused_before_any_request(url: str) -> None:
    with pytest.raises(Invalid):
        GuardedConnector(LOOPBACK).request("GET", url)


def test_a_name_without_an_address_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"nowhere\.invalid did not answer"):
        GuardedConnector().request("GET", "https://nowhere.invalid/")


def test_a_certificate_must_be_valid_for_the_name(tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    pem.write_bytes(_certificate("localhost"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def run() -> None:
            for _ in range(3):
                connection, _peer = listening.accept()
                with connection:
                    try:
                        with tls.wrap_socket(connection, server_side=True) as secure:
                            secure.recv(65536)
                            secure.sendall(OK)
                    except OSError:  # the client does not trust us
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        trusting = GuardedConnector((*LOOPBACK, parse_network("::1")), ca_bundle=str(pem))
        assert trusting.request("GET", f"https://localhost:{port}/").body == b"ok"
        with pytest.raises(Unavailable, match="certificate"):
            trusting.request("GET", f"https://127.0.0.1:{port}/")
        with pytest.raises(Unavailable, match="certificate"):
            GuardedConnector(LOOPBACK).request("GET", f"https://127.0.0.1:{port}/")
        thread.join(10)


def test_certificates_that_cannot_be_read_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read certificates"):
        GuardedConnector(ca_bundle=str(tmp_path / "none.pem"))


def _certificate(name: str) -> bytes:
    """A key and its self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
