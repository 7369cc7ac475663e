"""A worker whose connection to its engine or its registry breaks, or at whose address something else answers
for a while: it keeps loaded adapters, reports its knowledge, and continues when the connection is back.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest

from adaptry.testing.fault_proxy import FaultProxy, ProxyFault, run_proxy

from .conftest import Scene, settle
from .fakes import FakeEngine


@pytest.fixture
def engine(scene: Scene, kind: str) -> FakeEngine:
    return scene.engine(kind)


class Network:
    """An engine as a worker reaches it: through a proxy."""

    def __init__(self, engine: FakeEngine, proxy: FaultProxy) -> None:
        self.kind, self.url = engine.kind, f"http://127.0.0.1:{proxy.port}"


def port_of(engine: FakeEngine) -> int:
    return int(engine.url.rpartition(":")[2])


@pytest.mark.parametrize("after", [0, 20, 60, 100, 200])
def test_an_answer_that_is_cut_off_anywhere_counts_as_no_answer_of_the_engine(
    scene: Scene, engine: FakeEngine, after: int
) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    with run_proxy(FaultProxy("127.0.0.1", port_of(engine))) as proxy:
        worker = scene.worker(cast(FakeEngine, Network(engine, proxy)))
        settle(worker)
        proxy.arm(ProxyFault("close", after=after), times=None)
        scene.alias(second)
        for _ in range(3):
            assert not worker.reconcile(0.0)
        found = scene.registry.workers.get("gpu-1")
        assert not found.is_answering
        assert [one.number for one in found.residents if one.may_be_served] == [1]
        proxy.disarm()
        settle(worker)
    assert scene.serves(engine) == 2
    assert scene.registry.workers.get("gpu-1").is_answering


def test_another_server_at_the_engines_address_is_waited_out(scene: Scene) -> None:
    engine = scene.engine("vllm")
    version = scene.publish(1)
    scene.alias(version)
    with run_proxy(FaultProxy("127.0.0.1", port_of(engine))) as proxy:
        worker = scene.worker(cast(FakeEngine, Network(engine, proxy)))
        settle(worker)
        proxy.upstream = "127.0.0.1", int(scene.server.url.rpartition(":")[2])
        assert not worker.reconcile(0.0)
        assert not scene.registry.workers.get("gpu-1").is_answering
        proxy.upstream = "127.0.0.1", port_of(engine)
        settle(worker)
        assert scene.registry.workers.get("gpu-1").is_answering


class Maintenance(BaseHTTPRequestHandler):
    """The response of a reverse proxy to every path while no server is behind it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "19")
        self.end_headers()
        self.wfile.write(b"404 page not found\n")

    do_POST = do_GET  # noqa: N815  # the library's name

    def log_message(self, format: str, *arguments: object) -> None:
        """Writes no log."""


def test_a_proxy_that_answers_404_for_the_registry_unloads_nothing(scene: Scene) -> None:
    engine = scene.engine("vllm")
    scene.alias(scene.publish(1))
    there = int(scene.server.url.rpartition(":")[2])
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), Maintenance)
    thread = threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with run_proxy(FaultProxy("127.0.0.1", there)) as proxy:
            worker = scene.worker(engine, registry_url=f"http://127.0.0.1:{proxy.port}")
            settle(worker)
            proxy.upstream = "127.0.0.1", elsewhere.server_port
            proxy.reset_connections()
            for _ in range(3):
                assert not worker.reconcile(0.0)
                assert scene.serves(engine) == 1
            proxy.upstream = "127.0.0.1", there
            proxy.reset_connections()
            settle(worker)
            assert scene.serves(engine) == 1
    finally:
        elsewhere.shutdown()
        thread.join()
        elsewhere.server_close()
