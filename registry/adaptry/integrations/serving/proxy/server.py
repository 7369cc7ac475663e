"""The proxy's HTTP server: passes requests for models on to the engine, streams included.

Only requests to models are passed on, so clients cannot load or unload adapters through the proxy. An API key
is passed on unchanged. If a client disconnects, its request in the engine ends. A slow client loses its
connection, because the number of connections is limited and other clients need them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError

from adaptry.core.errors import AdaptryError, Busy, Invalid, InvalidRef, NotFound, TooLarge, Unavailable
from adaptry.core.stack_ref import StackRef, weight_suffix
from adaptry.integrations.serving.background_server import BackgroundServer
from adaptry.integrations.serving.proxy.client_connection import (
    DEFAULT_LIMITS,
    ClientConnection,
    ClientLimits,
)
from adaptry.integrations.serving.proxy.engine import ProxiedEngine
from adaptry.integrations.serving.proxy.passed_headers import end_to_end
from adaptry.integrations.serving.proxy.request_body import LargeBodies, body_size
from adaptry.integrations.serving.proxy.upstream import Upstream
from adaptry.integrations.serving.proxy.usage_reader import UsageReader
from adaptry.integrations.serving.worker.adapter_traffic import CLIENT_LEFT

_ANSWERING = frozenset(
    (
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/score",
        "/v1/rerank",
        "/tokenize",
        "/detokenize",
        "/pooling",
        "/classify",
    )
)
_READING = frozenset(("/v1/models", "/health", "/ping", "/version"))
_NOT_PASSED_ON = frozenset(("host", "content-length", "content-type", "accept-encoding", "expect"))
_MAX_LISTING = 16 << 20
_MAX_NAME = 1024
_SUSPENDED = 120.0  # seconds that a request waits for a name that is being replaced
_STOPPING = 30.0  # seconds that answers in progress have left when the proxy stops
_PART = 1 << 16


class ReverseProxy(BackgroundServer):
    """Serves the API of `engine` at `host:port` (port 0: any)."""

    def __init__(
        self,
        host: str,
        port: int,
        engine: ProxiedEngine,
        ca_bundle: str | None = None,
        limits: ClientLimits = DEFAULT_LIMITS,
    ) -> None:
        """Raises `Invalid` if it cannot listen at the address."""
        self.engine = engine
        self.upstream: Upstream = Upstream(engine, ca_bundle)
        self.large_bodies: LargeBodies = LargeBodies()
        self.is_stopping: bool = False
        handler = type("ProxyRequest", (_ProxyRequest,), {"front": self, "limits": limits})
        super().__init__(host, port, handler, limits.connections)

    def stop(self) -> None:
        """Accepts no further connections, and waits a limited time for running responses."""
        self.is_stopping = True
        super().stop()
        self.engine.routes.wait_until_idle(_STOPPING)


class _ProxyRequest(ClientConnection):
    """The requests of one client's connection."""

    front: ClassVar[ReverseProxy]
    answered_by: str | None = None
    """The adapter that answers, for a header of the answer: not every engine's answers name it."""

    def is_last_answer(self) -> bool:
        """Like the base class, and also true if the proxy stops, or if other clients need the connection."""
        return super().is_last_answer() or self.front.is_stopping or self.front.is_crowded

    def do_GET(self) -> None:  # noqa: N802  BaseHTTPRequestHandler calls it
        path, _, query = self.path.partition("?")
        if path not in _READING:
            self.refuse_unread(404, f"{path[:200]} is not passed on to the engine")
            return
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.refuse_unread(400, "a GET request has no body")
            return
        self.answered_by = None
        if path == "/v1/models":
            self._list_models()
            return
        try:
            self._pass_on("GET", f"{path}?{query}" if query else path, None, UsageReader())
        except Unavailable as error:
            self.refuse(502, error.message)

    def do_POST(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        if path not in _ANSWERING:
            self.refuse_unread(404, f"{path[:200]} is not passed on to the engine")
            return
        with ExitStack() as memory:
            try:
                size = body_size(self.headers)
                memory.enter_context(self.front.large_bodies.reserve(size))
                body = self.read_json(size)
            except (Invalid, Busy) as error:
                self.refuse_unread(_status(error), error.message)
                return
            except TimeoutError:
                self.refuse_unread(408, "the request arrived too slowly")
                return
            model = body.get("model")
            if not isinstance(model, str) or len(model) > _MAX_NAME:
                self.refuse(400, f"the request names no model, or one of more than {_MAX_NAME} characters")
                return
            self._answer(path, body, model)

    def _answer(self, path: str, body: dict[str, object], model: str) -> None:
        engine, usage = self.front.engine, UsageReader()
        self.answered_by = None
        try:
            parts = _parts(model) if engine.can_stack else ((model, 1.0),)
            targets = engine.routes.begin([name for name, _ in parts], _SUSPENDED)
        except NotFound as error:
            self.refuse(404, error.message)
            return
        except Unavailable as error:
            self.refuse(503, error.message)
            return
        status = CLIENT_LEFT
        try:
            weights = [weight for _, weight in parts]
            data = self._selected(body, model, targets, weights)
            self.answered_by = _label(targets, weights)
            status = self._pass_on("POST", path, json.dumps(data).encode(), usage)
        except AdaptryError as error:
            status = 404 if isinstance(error, NotFound) else 502
            self.refuse(status, error.message)
        finally:
            engine.routes.end(targets)
            for target in targets:
                engine.traffic.record(target, status, usage.tokens())

    def _selected(
        self, body: dict[str, object], model: str, targets: Sequence[str], weights: Sequence[float]
    ) -> dict[str, object]:
        """The request's body, changed so that the engine answers it with the targets. Raises the errors of
        `select_stack`.
        """
        engine = self.front.engine
        if engine.can_stack:
            named = {**body, "model": _label(targets, weights)}
            return engine.select_stack(named, list(zip(targets, weights, strict=True)))
        (target,) = targets
        return engine.select_adapter(body, target) if target != model else body

    def _pass_on(self, method: str, path: str, body: bytes | None, usage: UsageReader) -> int:
        """Sends the request to the engine, and its answer to the client. Returns the status. Raises
        `Unavailable` if the engine does not answer."""
        with self.front.upstream.open(method, path, self._passed_headers(body), body) as answer:
            self._send_answer(answer, usage)
            return answer.status

    def _send_answer(self, answer: urllib3.BaseHTTPResponse, usage: UsageReader) -> None:
        """Sends each part as soon as it arrives. Raises `OSError` if the client or the engine disconnects."""
        length = answer.headers.get("Content-Length")
        is_chunked = length is None and self.request_version != "HTTP/1.0"
        self.send_response(answer.status)
        for name, value in end_to_end(answer.headers.iteritems(), frozenset(("server", "date"))):
            self.send_header(name, value)
        if self.answered_by:
            self.send_header("X-Adaptry-Model", self.answered_by)
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length is None:
            self.close_connection = True
        self.end_answer_headers()
        try:
            for part in answer.stream(_PART, decode_content=False):
                usage.add(part)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
        except HTTPError as error:
            raise ConnectionAbortedError(str(error)) from error
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _list_models(self) -> None:
        """Answers with the engine's listing, with the public names as further models."""
        try:
            with self.front.upstream.open("GET", "/v1/models", self._passed_headers(None), None) as answer:
                status, data = answer.status, answer.read(_MAX_LISTING)
            listing = json.loads(data)
            cards = {card["id"]: card for card in listing["data"]}
        except AdaptryError as error:
            self.refuse(502, error.message)
            return
        except (HTTPError, ValueError, KeyError, TypeError):
            self.refuse(502, "the engine's listing of models cannot be read")
            return
        engine = self.front.engine
        for name, target in engine.routes.targets().items():
            if target in cards or engine.can_stack:  # an engine that can stack lists only its base
                listing["data"].append({**cards.get(target, {"object": "model"}), "id": name})
        self.send_json(status, listing)

    def _passed_headers(self, body: bytes | None) -> HTTPHeaderDict:
        passed = HTTPHeaderDict(end_to_end(self.headers.items(), _NOT_PASSED_ON))
        if body is not None:
            passed["Content-Type"] = "application/json"
        return passed


def _status(error: AdaptryError) -> int:
    match error:
        case TooLarge():
            return 413
        case Busy():
            return 503
    return 400


def _label(targets: Sequence[str], weights: Sequence[float]) -> str:
    """Loaded adapters and their weights as one name."""
    return "+".join(
        f"{target}{weight_suffix(weight)}" for target, weight in zip(targets, weights, strict=True)
    )


def _parts(model: str) -> tuple[tuple[str, float], ...]:
    """The names in a request's `model`, with their weights; other names stand for themselves."""
    try:
        stack = StackRef.parse(model)
    except InvalidRef:
        return ((model, 1.0),)
    return tuple((str(part.ref), part.weight) for part in stack.parts)
