"""An alias moves without a gap behind the proxy: every request is answered by the version that its name
referred to when it began, whatever the engine supports.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import urllib3
from click.testing import Result

from adaptry.core.errors import Busy, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.background_server import BackgroundServer
from adaptry.integrations.serving.engines import ENGINES, EngineClient
from adaptry.integrations.serving.proxy.client_connection import ClientLimits
from adaptry.integrations.serving.proxy.engine import ProxiedEngine
from adaptry.integrations.serving.proxy.request_body import LargeBodies
from adaptry.integrations.serving.proxy.routes import RouteTable
from adaptry.integrations.serving.proxy.server import ReverseProxy
from adaptry_cli.follow_servers import open_proxy

from .conftest import PROD, Scene, settle
from .test_commands import follow, run

__all__ = ["follow", "run"]


def ask(scene: Scene, model: str = PROD, tokens: int = 1) -> tuple[int, Any]:
    """The status, and the number of the version that answered, or the reason why none did."""
    body = {"model": model, "prompt": "a", "max_tokens": tokens}
    url = f"{scene.proxies['gpu-1'].url}/v1/completions"
    answer = urllib3.request("POST", url, json=body, retries=False, timeout=60)
    if answer.status != 200:
        return answer.status, answer.json()["error"]["message"]
    version = scene.weights.get(answer.json()["choices"][0]["text"])
    return 200, version.number if version else None


@pytest.fixture
def later() -> Iterator[Callable[..., Future[tuple[int, Any]]]]:
    with ThreadPoolExecutor() as pool:
        yield lambda scene, **options: pool.submit(ask, scene, **options)


Later = Callable[..., Future[tuple[int, Any]]]


def test_a_name_moves_while_requests_are_running(scene: Scene, kind: str, later: Later) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine, has_proxy=True)
    settle(worker)
    engine.is_generating = True
    long = later(scene, tokens=9)
    engine.wait_until_under_way()

    scene.alias(second)
    worker.reconcile(0.0)

    assert ask(scene) == (200, 2)
    assert any(first.digest.hex in path for path in engine.names().values())
    engine.finish_generations()
    assert long.result() == (200, 1)
    settle(worker)
    assert list(engine.names()) == [f"acme/tone@{second.digest.brief}"]
    assert [one.served_as for one in scene.registry.workers.get("gpu-1").residents] == [PROD]


def test_with_one_slot_new_requests_wait_until_the_old_ones_have_ended(scene: Scene, later: Later) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine, has_proxy=True, slots=1)
    settle(worker)
    engine.is_generating = True
    long = later(scene, tokens=9)
    engine.wait_until_under_way()
    scene.alias(second)
    assert not worker.reconcile(0.0)
    waiting = later(scene)

    engine.finish_generations()

    assert long.result() == (200, 1)
    settle(worker)
    assert waiting.result() == (200, 2)
    assert engine.most == 1


def test_requests_waiting_for_a_removed_name_are_refused(scene: Scene, later: Later) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine, has_proxy=True, slots=1)
    settle(worker)
    engine.is_generating = True
    long = later(scene, tokens=9)
    engine.wait_until_under_way()
    scene.alias(second)
    worker.reconcile(0.0)
    waiting = later(scene)
    scene.stand(second)
    worker.reconcile(0.0)
    assert waiting.result()[0] == 404
    engine.finish_generations()
    assert long.result() == (200, 1)


def test_a_proxy_that_stops_lets_answers_end(scene: Scene, later: Later) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    settle(scene.worker(engine, has_proxy=True))
    engine.is_generating = True
    long = later(scene, tokens=9)
    engine.wait_until_under_way()
    stopping = threading.Thread(target=scene.proxies["gpu-1"].stop)
    stopping.start()
    with pytest.raises(urllib3.exceptions.HTTPError):
        while True:
            ask(scene)
    engine.finish_generations()
    assert long.result() == (200, 1)
    stopping.join()


def test_a_llamacpp_restarted_by_others_answers_for_no_missing_adapter(
    scene: Scene,
) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine("llamacpp")
    worker = scene.worker(engine, has_proxy=True)
    settle(worker)
    assert ask(scene) == (200, 1)
    engine.stop()
    engine.start()
    status, reason = ask(scene)
    assert (status, "the engine was restarted without acme/tone@" in reason) == (502, True)
    settle(worker)
    assert ask(scene) == (200, 1)


def test_two_names_of_one_version_load_it_only_once(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    scene.alias(first, "next")
    engine = scene.engine()
    worker = scene.worker(engine, has_proxy=True, watch=("acme/*@*",))
    settle(worker)
    assert [ask(scene), ask(scene, "acme/tone@next")] == [(200, 1), (200, 1)]
    assert len(engine.names()) == 1
    scene.registry.aliases.remove(first.name, "prod", was=1)
    settle(worker)
    assert [ask(scene)[0], ask(scene, "acme/tone@next")] == [404, (200, 1)]


def test_requests_wait_while_an_engine_restarts_to_load(scene: Scene, later: Later) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine("llamacpp")
    worker = scene.worker(engine, has_proxy=True)
    settle(worker)
    engine.is_generating = True
    long = later(scene, tokens=9)
    engine.wait_until_under_way()
    scene.alias(second)
    loading = threading.Thread(target=settle, args=(worker,))
    loading.start()
    waiting = [later(scene) for _ in range(4)]

    engine.finish_generations()

    assert long.result() == (200, 1)
    assert {one.result()[0] for one in waiting} == {200}
    loading.join()
    assert engine.interrupted == 0
    assert ask(scene) == (200, 2)
    assert ask(scene, "org/tiny") == (200, None)


def test_a_pause_begins_when_running_requests_have_ended_and_new_ones_wait() -> None:
    routes, events = RouteTable(), []
    running = routes.begin(["a"], 0)

    def pause() -> None:
        with routes.paused(60):
            events.append("paused")

    pausing = threading.Thread(target=pause)
    pausing.start()
    events.append("ended")
    routes.end(running)
    pausing.join()
    assert events == ["ended", "paused"]
    with routes.paused(0), pytest.raises(Unavailable):
        routes.begin(["a"], 0)
    assert routes.begin(["a"], 0) == ("a",)


def test_several_adapters_answer_one_request_where_the_engine_scales_them(scene: Scene) -> None:
    facts = AdapterName.parse("acme/facts")
    first, other = scene.publish(1), scene.publish(2, facts)
    scene.alias(first)
    scene.alias(other)
    scene.alias(other, "next")
    engine = scene.engine("llamacpp")
    worker = scene.worker(engine, has_proxy=True, watch=("acme/*@*",))
    settle(worker)
    weights = {version.name: digest for digest, version in scene.weights.items()}
    both = f"{PROD}+acme/facts@prod=0.5"
    url = f"{scene.proxies['gpu-1'].url}/v1/completions"
    answer = urllib3.request("POST", url, json={"model": both, "prompt": "a"}).json()
    said = answer["choices"][0]["text"].split(" + ")
    assert sorted(said) == sorted((weights[first.name], f"{weights[facts]}*0.5"))
    assert answer["model"] == f"acme/tone@{first.digest.brief}+acme/facts@{other.digest.brief}=0.5"
    twice = {"model": "acme/facts@prod+acme/facts@next=2", "prompt": "a"}
    assert urllib3.request("POST", url, json=twice).json()["choices"][0]["text"] == f"{weights[facts]}*3.0"
    assert ask(scene, f"{PROD}+acme/nothing") == (
        404,
        "acme/nothing is neither a loaded adapter nor the base model",
    )
    scene.stand(other)
    settle(worker)
    assert ask(scene, both) == (404, "acme/facts@prod is neither a loaded adapter nor the base model")
    assert ask(scene) == (200, 1)


def test_a_recalled_version_is_refused_and_dropped_once_its_requests_have_ended(
    scene: Scene, later: Later
) -> None:
    first = scene.publish(1)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine, has_proxy=True)
    settle(worker)
    (path,) = engine.names().values()
    engine.is_generating = True
    long = later(scene, tokens=9)
    engine.wait_until_under_way()

    scene.stand(first)
    assert not worker.reconcile(0.0)

    assert ask(scene)[0] == 404
    assert Path(path).is_dir()
    assert scene.registry.workers.residents(Ref.parse("acme/tone@1"))[0].dropped_at is None
    engine.finish_generations()
    assert long.result() == (200, 1)
    settle(worker)
    assert not Path(path).exists()
    assert ask(scene, f"acme/tone@{first.digest.brief}")[0] == 404
    assert scene.registry.workers.residents(Ref.parse("acme/tone@1"))[0].dropped_at is not None


def test_a_version_that_the_engine_refuses_takes_no_name(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine, has_proxy=True)
    settle(worker)
    engine.fails = {weights for weights, one in scene.weights.items() if one.number == 2}
    scene.alias(second)
    for _ in range(2):
        worker.reconcile(0.0)
    assert ask(scene) == (200, 1)
    assert all(first.digest.hex in path for path in engine.names().values())


def test_names_are_served_again_as_soon_as_the_proxy_is_back(scene: Scene) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    settle(scene.worker(engine, has_proxy=True))
    scene.worker(engine, has_proxy=True)
    assert ask(scene) == (200, 1)


def test_adapters_loaded_before_the_proxy_started_are_served_by_it(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    settle(scene.worker(engine))
    worker = scene.worker(engine, has_proxy=True)
    settle(worker)
    assert ask(scene) == (200, 1)
    scene.alias(second)
    settle(worker)
    assert ask(scene) == (200, 2)
    assert list(engine.names()) == [f"acme/tone@{second.digest.brief}"]


def test_public_names_are_listed_as_models_and_answers_name_their_version(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    settle(scene.worker(scene.engine(), has_proxy=True))
    url = scene.proxies["gpu-1"].url
    listed = urllib3.request("GET", f"{url}/v1/models").json()["data"]
    brief = f"acme/tone@{first.digest.brief}"
    assert {one["id"]: one["parent"] for one in listed} == {
        "org/tiny": None,
        brief: "org/tiny",
        PROD: "org/tiny",
    }
    for name in (PROD, brief):
        answer = urllib3.request("POST", f"{url}/v1/completions", json={"model": name, "prompt": "a"})
        assert answer.json()["model"] == answer.headers["X-Adaptry-Model"] == brief


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/load_lora_adapter", b"{}", 404),
        ("POST", "/v1/%6coad_lora_adapter", b"{}", 404),
        ("POST", "/v1/completions/../load_lora_adapter", b"{}", 404),
        ("GET", "/metrics", None, 404),
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b'{"prompt": "a"}', 400),
        ("POST", "/v1/completions", b"[" * 100_000, 400),
        ("POST", "/v1/completions", b'{"model": "a", "model": "b"}', 400),
        ("POST", "/v1/completions", None, 400),
        ("GET", "/v1/models", b"{}", 400),
    ],
)
def test_only_requests_to_a_model_are_passed_on(
    method: str, path: str, body: bytes | None, status: int
) -> None:
    with upstream([]) as url, proxied(url) as proxy, connected(proxy) as connection:
        length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + (body or b""))
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


def test_a_stream_comes_part_by_part_and_ends_in_the_engine_when_the_client_leaves() -> None:
    left = threading.Event()
    with upstream([b"data: one\n\n", b"data: two\n\n"], left) as url, proxied(url) as proxy:
        answer = urllib3.request(
            "POST", f"{proxy}/v1/completions", json={"model": "a"}, preload_content=False, retries=False
        )
        parts = answer.read_chunked()
        assert [next(parts), next(parts)] == [b"data: one\n\n", b"data: two\n\n"]
        answer.close()
        assert left.wait(60)


def test_an_unreachable_engine_is_a_bad_gateway() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with proxied(f"http://127.0.0.1:{held.getsockname()[1]}") as proxy:
            answer = urllib3.request("POST", f"{proxy}/v1/completions", json={"model": "a"}, retries=False)
    assert (answer.status, "does not answer" in answer.json()["error"]["message"]) == (502, True)


def test_a_connection_beyond_the_maximum_is_refused_and_one_is_free_again_afterwards() -> None:
    with upstream([]) as url, limited(url, ClientLimits(connections=1)) as proxy:
        with connected(proxy) as first:
            first.sendall(b"POST /v1/completions HTTP/1.1\r\n")
            refused = urllib3.request("POST", f"{proxy}/v1/completions", json={"model": "a"}, retries=False)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            assert "too many connections" in refused.json()["error"]["message"]
        answer = urllib3.request(
            "POST",
            f"{proxy}/v1/completions",
            json={"model": "a"},
            retries=urllib3.Retry(10, allowed_methods=None, status_forcelist=[503]),
        )
        assert (answer.status, answer.headers["Connection"]) == (200, "close")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"POST /v1/compl", b""),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 408"),
    ],
    ids=["idle", "head", "body"],
)
def test_a_slow_client_is_disconnected(sent: bytes, status: bytes) -> None:
    limits = ClientLimits(idle=0.1, head=0.1, body=0.1)
    with upstream([]) as url, limited(url, limits) as proxy, connected(proxy) as client:
        client.sendall(sent)
        assert client.recv(12) == status


def test_a_body_that_is_too_large_is_refused_before_it_is_sent() -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with upstream([b"done"]) as url, proxied(url) as proxy:
        with connected(proxy) as client:
            client.sendall(head % (1 << 30))
            assert client.recv(12) == b"HTTP/1.1 413"
        with connected(proxy) as client:
            body = b'{"model": "a"}'
            client.sendall(head % len(body))
            assert client.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert client.recv(12) == b"HTTP/1.1 200"


def test_large_bodies_share_a_limited_memory_and_small_ones_need_none() -> None:
    memory = LargeBodies(1 << 20)
    with memory.reserve(1 << 20):
        with pytest.raises(Busy), memory.reserve(1 << 19):
            pass
        with memory.reserve(1000):
            pass
    with memory.reserve(1 << 19):
        pass


def test_headers_of_one_connection_are_not_passed_on_in_either_direction() -> None:
    heard: list[dict[str, str]] = []
    with upstream([b"done"], heard=heard) as url, proxied(url) as proxy:
        headers = {"Connection": "close, X-Hop", "X-Hop": "1", "X-Kept": "2", "TE": "trailers"}
        answer = urllib3.request("POST", f"{proxy}/v1/completions", json={"model": "a"}, headers=headers)
    assert answer.data == b"done"
    (told,) = heard
    assert (told.get("X-Kept"), told.get("X-Hop"), told.get("TE")) == ("2", None, None)
    assert (answer.headers["X-Kept"], answer.headers.get("X-Hop")) == ("2", None)


def test_follow_first_reports_a_gap_at_alias_moves(scene: Scene, follow: Callable[..., Result]) -> None:
    assert follow(scene.engine("vllm")).stderr.startswith("while an alias moves, vllm has a gap")
    assert "gap" not in follow(scene.engine("mistralrs")).stderr
    told = follow(scene.engine("vllm"), "--proxy", "127.0.0.1:0", code=2)
    assert "leave out --once" in told.stderr


@contextmanager
def proxied(url: str) -> Iterator[str]:
    with open_proxy(ENGINES["vllm"](EngineClient(url)), {}, "127.0.0.1:0", None) as proxy:
        yield proxy.url


@contextmanager
def limited(url: str, limits: ClientLimits) -> Iterator[str]:
    engine = ProxiedEngine(ENGINES["vllm"](EngineClient(url)), {})
    with ReverseProxy("127.0.0.1", 0, engine, limits=limits) as proxy:
        yield proxy.url


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        yield connection


@contextmanager
def upstream(
    parts: list[bytes], left: threading.Event | None = None, heard: list[dict[str, str]] | None = None
) -> Iterator[str]:
    """An engine that answers with these parts, and then with more until its client stops reading. The headers
    of requests are added to `heard`.
    """

    class Streaming(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if heard is not None:
                heard.append(dict(self.headers.items()))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            for name, value in (("Connection", "X-Hop"), ("X-Hop", "1"), ("X-Kept", "2")):
                self.send_header(name, value)
            self.end_headers()
            try:
                for part in parts:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                while left is not None:
                    self.wfile.write(b"5\r\nmore\n\r\n")
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                assert left is not None
                left.set()

        def log_message(self, *words: Any) -> None:
            pass

    with BackgroundServer("127.0.0.1", 0, Streaming) as server:
        yield server.url
