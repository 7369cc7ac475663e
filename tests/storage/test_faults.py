"""The fault proxy, between a client and an echo server: it injects exactly the requested faults."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from adaptry.testing.fault_proxy import FaultProxy, ProxyFault, run_proxy


class _Echo(StreamRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)
        except OSError:
            pass


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with run_proxy(FaultProxy("127.0.0.1", server.server_address[1])) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 10)


def said_back(client: socket.socket, data: bytes) -> bytes:
    """The bytes that come back, until all are received or the other side closes the connection."""
    client.sendall(data)
    found = b""
    while len(found) < len(data) and (piece := client.recv(1 << 16)):
        found += piece
    return found


def test_an_unarmed_proxy_passes_everything_on(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4000
    with closing(connect(proxy)) as client:
        client.settimeout(10)
        for at in range(0, len(data), 1 << 15):
            assert said_back(client, data[at : at + (1 << 15)]) == data[at : at + (1 << 15)]
    assert (proxy.connections, proxy.fault_count) == (1, 0)


@pytest.mark.parametrize("fault", [ProxyFault("reset", "up", after=3), ProxyFault("reset", "down", after=3)])
def test_a_reset_happens_once_after_the_given_bytes(proxy: FaultProxy, fault: ProxyFault) -> None:
    with closing(connect(proxy)) as client:
        assert said_back(client, b"before") == b"before"
        proxy.arm(fault)
        with pytest.raises(ConnectionResetError):
            assert said_back(client, b"hello") in (b"", b"hel")
            client.recv(1)
    with closing(connect(proxy)) as client:
        assert said_back(client, b"again") == b"again"
    assert proxy.fault_count == 1


def test_a_close_delivers_only_the_bytes_before_it(proxy: FaultProxy) -> None:
    proxy.arm(ProxyFault("close", after=3))
    with closing(connect(proxy)) as client:
        assert said_back(client, b"hello") == b"hel"


def test_a_black_hole_keeps_the_connection_silent(proxy: FaultProxy) -> None:
    proxy.arm(ProxyFault("blackhole"))
    with closing(connect(proxy)) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            said_back(client, b"hello")
        proxy.reset_connections()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_connections_are_refused_until_the_proxy_is_disarmed(proxy: FaultProxy) -> None:
    proxy.arm(ProxyFault("refuse"), times=None)
    for _ in range(3):
        with pytest.raises(ConnectionError), closing(connect(proxy)) as client:
            client.sendall(b"hello")
            client.recv(1)
    assert proxy.fault_count == 3
    proxy.disarm()
    with closing(connect(proxy)) as client:
        assert said_back(client, b"hello") == b"hello"


@pytest.mark.parametrize("fault", [ProxyFault("delay", seconds=0.01), ProxyFault("slow", after=2, rate=1000)])
def test_delayed_bytes_arrive_completely(proxy: FaultProxy, fault: ProxyFault) -> None:
    proxy.arm(fault, times=None)
    with closing(connect(proxy)) as client:
        assert said_back(client, b"hello") == b"hello"
    assert proxy.fault_count


def test_new_connections_may_go_to_another_server(proxy: FaultProxy) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other, closing(connect(proxy)) as before:
        assert said_back(before, b"hello") == b"hello"
        proxy.upstream = ("127.0.0.1", other.getsockname()[1])
        with closing(connect(proxy)) as client:
            accepted, _ = other.accept()
            with closing(accepted):
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
        assert said_back(before, b"still here") == b"still here"
