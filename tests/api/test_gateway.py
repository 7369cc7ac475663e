"""Gateways ask the registry who may use a model: by a JSON request, and through real proxies
(Envoy, nginx).
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3
from pydantic import SecretStr
from tests.gateways import OpenGateway, gateway_starter

from adaptry.adapters.adapter import open_dir
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.identity import LOCAL, Identity
from adaptry.operations.transfer import push
from adaptry.registry.access import GrantRequest, TokenRequest
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.inference import InferenceRequest
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora
from adaptry_api.app_state import AppState
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import RawResponse, Server, assert_problem, running_server, until

from .test_request_log import Log, log

__all__ = ["log"]

EXT_AUTHZ = "/api/v1/authorize/ext-authz/v1/chat/completions"
MODEL = "acme/tone@prod"


@dataclass(frozen=True)
class Scene:
    """A registry with acme/tone@prod and acme/facts; `zoe` may read the first, and `gate` is acme's
    gateway.
    """

    server: Server
    gate: str
    zoe: str

    def ask(self, model: object, token: str | None = None, gate: str | None = None) -> RawResponse:
        body = {"token": token or self.zoe, "model": model}
        return self.server.call("POST", "/api/v1/authorize", body, token=gate or self.gate)

    def pass_on(self, body: object, token: str | None = None, gate: str | None = None) -> RawResponse:
        """Asks as Envoy does."""
        headers = {"Adaptry-Gateway-Token": gate or self.gate}
        return self.server.call("POST", EXT_AUTHZ, body, token=token or self.zoe, headers=headers)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("gateway")
    with (
        ExitStack() as at_the_end,
        running_server(ServerSettings(data=folder / "data"), at_the_end.callback) as server,
    ):
        registry, options = server.registry(), PushOptions(alias="prod")
        push(registry, open_dir(tiny_lora(folder / "tone")), "acme/tone", options=options)
        push(registry, open_dir(tiny_lora(folder / "facts", seed=2)), "acme/facts", options=options)
        registry.principals.create("user", "zoe")
        registry.grants.add(GrantRequest(principal="zoe", permission="viewer", resource="acme/tone"))
        zoe = registry.tokens.create(TokenRequest(name="app", principal="zoe")).secret
        gate = Identity("gate", (Grant("inference.authorize", Resource("acme")),))
        yield Scene(server, server.token_of(gate), zoe)


DENIED = ["acme/facts@prod", "acme/absent@prod", "acme/tone@9", "acme/tone@prod+acme/facts@prod=0.5"]
_REQUEST = re.compile(rb'"request":"\w+"')


def seen(answer: RawResponse) -> tuple[int, dict[str, str], bytes]:
    """The whole response, except for the time and the request's id."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    headers = {name: value for name, value in headers.items() if name not in ("date", "request-id")}
    return answer.status, headers, _REQUEST.sub(b"", answer.body)


def test_denials_are_identical_and_may_be_cached_for_five_seconds(scene: Scene) -> None:
    allowed = scene.ask(MODEL)
    denials = [seen(scene.ask(model)) for model in DENIED]
    denials += [seen(scene.ask(MODEL, token)) for token in ("adr_pat_x", scene.zoe + "x", "nonsense")]

    assert (allowed.status, allowed.json["is_allowed"], allowed.json["principal"]) == (200, True, "zoe")
    assert all(one == denials[0] for one in denials)
    assert json.loads(denials[0][2]) == {"is_allowed": False, "max_age": 5, "principal": None, "parts": []}
    assert {allowed.headers["Cache-Control"], denials[0][1]["cache-control"]} == {"private, max-age=5"}


def test_a_forwarded_request_is_decided_by_the_model_in_its_body(scene: Scene) -> None:
    passed = scene.pass_on({"model": f"{MODEL}=0.5", "messages": [], "n": 1})
    assert (passed.status, passed.body) == (200, b"")
    assert passed.headers["Adaptry-Principal"] == "zoe"
    assert re.fullmatch(r"acme/tone@sha256:\w{64}=0\.5", passed.headers["Adaptry-Model"])

    others = scene.server.token("olga", "reader", ("evil",))
    denials = [scene.pass_on({"model": model}) for model in (*DENIED, "evil/tone")]
    denials += [scene.pass_on({"model": MODEL}, token) for token in ("adr_pat_x", others)]
    denials += [scene.pass_on({"model": MODEL}, gate=scene.zoe)]  # this caller is not a gateway
    for one in denials:
        assert seen(one) == seen(denials[0])
    assert_problem(denials[0], 403, "denied")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no json", b"[]", {}, {"model": 5}, {"model": ""}, {"model": "a" * 3000}, {"model": "gpt2"},
        b'{"model": "acme/tone@prod", "model": "acme/facts@prod"}',
        b'{"model": "acme/tone@prod", "Model": "acme/facts@prod"}',
        b'{"model": "acme/tone@prod"} {"model": "acme/facts@prod"}',
        b'{"model": "acme/tone@prod", "prompt": ' + b"[" * 100 + b"]" * 100 + b"}",
    ],
)  # fmt: skip
def test_a_request_without_exactly_one_model_does_not_pass(scene: Scene, body: object) -> None:
    assert scene.pass_on(body).status == 400


def test_a_gateway_needs_its_own_token(scene: Scene) -> None:
    assert_problem(scene.server.call("POST", EXT_AUTHZ, {"model": MODEL}), 401, "unauthenticated")
    wrong = {"Adaptry-Gateway-Token": "adr_pat_x"}
    assert_problem(
        scene.server.call("POST", EXT_AUTHZ, {"model": MODEL}, headers=wrong), 401, "unauthenticated"
    )
    assert_problem(scene.ask(MODEL, gate=scene.zoe), 403, "denied")


def test_a_gateway_may_read_nothing_itself(scene: Scene) -> None:
    answer = scene.server.call("GET", "/api/v1/adapters/acme/tone", token=scene.gate)
    assert_problem(answer, 404, "not_found")


def test_the_token_in_question_is_neither_logged_nor_audited_nor_repeated(scene: Scene, log: Log) -> None:
    log.begin("json")
    strange = scene.zoe + "\u2028\nforged"
    answers = [scene.ask(MODEL), scene.ask("gpt2"), scene.ask(MODEL, strange), scene.ask(5)]
    answers += [scene.ask(MODEL, gate=scene.zoe), scene.pass_on({"model": "acme/facts"})]
    answers += [scene.ask(MODEL, "x" * 600), scene.pass_on(b"{")]
    lines = log.lines(len(answers))

    body = scene.zoe.split("_")[-1]
    assert not any(body in line for line in lines)
    assert not any(body.encode() in answer.body for answer in answers)
    assert [answer.status for answer in answers] == [200, 400, 200, 422, 403, 403, 422, 400]
    entries = until(
        lambda: scene.server.registry().audit.list(AuditFilter(denied=True)).items,
        lambda found: {entry.actor for entry in found} >= {"gate", "zoe"},
    )
    assert not any(body in entry.model_dump_json() for entry in entries)


def test_a_token_that_is_used_through_a_gateway_counts_as_used(tmp_path: Path) -> None:
    with closing(AppState(ServerSettings(data=tmp_path / "data"))) as state:
        registry = state.registry(LOCAL)
        push(registry, open_dir(tiny_lora(tmp_path / "tone")), "acme/tone")
        made = registry.tokens.create(TokenRequest(name="app", role="reader", namespaces=("acme",)))
        question = InferenceRequest(token=SecretStr(made.secret), model="acme/tone")

        assert registry.grants.authorize(question).is_allowed
        state.store_token_uses()

        (token,) = registry.tokens.list().items
        assert token.last_used_at is not None


@dataclass
class Engine:
    """A small upstream that answers with the `model` that reached it, and keeps each request's headers."""

    port: int
    reached: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def small_engine() -> Iterator[Engine]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            engine.reached.append({name.lower(): value for name, value in self.headers.items()})
            answer = json.dumps({"answered_by": body["model"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        engine = Engine(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=["envoy", pytest.param("nginx", marks=pytest.mark.slow)])
def open_gateway(request: pytest.FixtureRequest) -> OpenGateway:
    return gateway_starter(request.param)


def test_behind_a_real_proxy_a_tenant_is_served_what_they_may_use_and_nothing_else(
    scene: Scene, tmp_path: Path, open_gateway: OpenGateway
) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=30)

    def complete(model: str, token: str | None, path: str = "/v1/chat/completions") -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Headers that a client must not be able to choose.
        headers |= {"Adaptry-Gateway-Token": scene.server.admin, "Adaptry-Principal": "root"}
        answer = pool.request("POST", url + path, json={"model": model}, headers=headers)
        return answer.status, answer.data

    registry = int(scene.server.url.rpartition(":")[2])
    with (
        small_engine() as engine,
        open_gateway(tmp_path, registry, engine.port, scene.gate) as url,
    ):
        assert complete(MODEL, scene.zoe) == (200, b'{"answered_by": "acme/tone@prod"}')
        assert engine.reached[0]["adaptry-principal"] == "zoe"
        assert "authorization" not in engine.reached[0]
        for model in (*DENIED, "evil/tone"):
            assert complete(model, scene.zoe)[0] == 403
        assert complete(MODEL, None)[0] == complete(MODEL, "adr_pat_x")[0] == 403
        # Neither a question mark nor another path changes the model or the route of the decision.
        assert complete("acme/facts@prod", scene.zoe, f"/v1/chat/completions?model={MODEL}")[0] == 403
        assert complete(MODEL, scene.zoe, "/v1/models")[0] == 404
        assert complete(MODEL, scene.zoe, "/-/authorize")[0] == 404
        assert pool.request("GET", f"{url}/v1/chat/completions").status in (403, 404)
        twice = b'{"model": "acme/tone@prod", "model": "acme/facts@prod"}'
        headers = {"Authorization": f"Bearer {scene.zoe}"}
        for body in (twice, b"", b"\xff", gzip.compress(b'{"model": "acme/tone@prod"}')):
            assert pool.request("POST", f"{url}/v1/completions", body=body, headers=headers).status == 400
        assert len(engine.reached) == 1
        long = {"model": MODEL, "prompt": "ä" * 300_000}
        assert pool.request("POST", f"{url}/v1/completions", json=long, headers=headers).status == 200
        assert int(engine.reached[1]["content-length"]) > 300_000


def test_behind_a_real_proxy_no_similar_header_names_another_principal(
    scene: Scene, tmp_path: Path, open_gateway: OpenGateway
) -> None:
    registry = int(scene.server.url.rpartition(":")[2])
    with small_engine() as engine, open_gateway(tmp_path, registry, engine.port, scene.gate) as url:
        for forged in (
            {"Adaptry_Principal": "root"},
            {"Connection": "Adaptry-Principal"},
            {"Connection": "close, Adaptry-Principal, Authorization"},
            {"Adaptry-Principal": "root"},
        ):
            headers = {"Authorization": f"Bearer {scene.zoe}", **forged}
            answer = urllib3.request(
                "POST", f"{url}/v1/completions", json={"model": MODEL}, headers=headers, retries=False
            )
            assert answer.status in (200, 400, 403), answer.data
        for reached in engine.reached:
            # WSGI and CGI make both spellings the same variable.
            named = {
                value for name, value in reached.items() if name.replace("_", "-") == "adaptry-principal"
            }
            assert named == {"zoe"}
        assert engine.reached


def test_behind_a_real_proxy_no_request_is_served_without_the_registry(
    scene: Scene, tmp_path: Path, open_gateway: OpenGateway
) -> None:
    with closing(socket.socket()) as nobody, small_engine() as engine, ExitStack() as stack:
        nobody.bind(("127.0.0.1", 0))  # and does not read
        port = nobody.getsockname()[1]
        url = stack.enter_context(open_gateway(tmp_path, port, engine.port, scene.gate))
        headers = {"Authorization": f"Bearer {scene.zoe}"}
        answer = urllib3.request(
            "POST", f"{url}/v1/completions", json={"model": MODEL}, headers=headers, retries=False
        )
        assert answer.status in (403, 503)
        assert engine.reached == []
