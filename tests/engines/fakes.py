"""Fake engines with the documented HTTP interfaces of real ones, without a model; they read the files that
they are given.

A response is the SHA-256 of the weights that produced it, so a test sees which version answered.
Surprising behaviour of the real engines is imitated: vLLM's front end removes a name while the engine keeps
the weights; SGLang loads an unloaded adapter again from the path that it remembers; mistral.rs swaps by
compare-and-swap. `answers` has all responses.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import socket
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from adaptry.integrations.serving.vllm.names import PLUGIN_ANSWER, PLUGIN_PROBE

WEIGHTS = "adapter_model.safetensors"
Answer = tuple[int, Any]


class Broken(Exception):
    """A request that ends in an error, with its status and message."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors, since clients are killed on purpose here."""


class FakeEngine:
    """A server on its own port, which it keeps when it is restarted; after a restart, it has nothing loaded.

    `refuses` are digests of weights that it will not load, `fails` those with which requests end in an error.
    While it `is_starting` it answers 503; with a `key` it wants that, as vLLM does, under `/v1`. Answers of
    more than one token come once `is_generating` is cleared; `under_way` are those that have begun.
    """

    kind: ClassVar[str]
    version: ClassVar[str] = "0.33.0"

    def __init__(self, models: tuple[str, ...] = ("org/tiny",)) -> None:
        self.models = models
        self.answers: list[tuple[float, str, str]] = []
        self.refuses: set[str] = set()
        self.fails: set[str] = set()
        self.most = 0
        self.ended: str | None = None
        self.is_starting = False
        self.key: str | None = None
        self.is_generating = False
        self.under_way = 0
        self._has_changed = threading.Condition()
        self.requests = self.errors = 0
        self._port = 0
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._connections: set[socket.socket] = set()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        """Starts without adapters."""
        self.clear()
        engine = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                engine._connections.add(self.connection)

            def finish(self) -> None:
                engine._connections.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                self._answer(engine.get, self.path)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                asked = json.loads(body or b"{}")
                is_long = self.path == "/v1/completions" and asked.get("max_tokens", 1) > 1
                self._answer(engine.post, self.path, asked, is_long=is_long)

            def do_DELETE(self) -> None:
                self._answer(engine.delete, self.path)

            def _answer(self, ask: Any, *asked: Any, is_long: bool = False) -> None:
                try:
                    engine.receive(self.path, self.headers.get("Authorization"))
                    with engine._lock:
                        status, content = ask(*asked)
                except Broken as broken:
                    status, content = broken.status, {"error": {"message": str(broken)}}
                if is_long:
                    engine.wait_for_generation()
                text = content if isinstance(content, str) else json.dumps(content)
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", self._port), Requests)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stops, and loses all adapters."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            for connection in tuple(self._connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.clear()

    def wait_for_generation(self) -> None:
        with self._has_changed:
            self.under_way += 1
            self._has_changed.notify_all()
            assert self._has_changed.wait_for(lambda: not self.is_generating, 60)
            self.under_way -= 1

    def finish_generations(self) -> None:
        with self._has_changed:
            self.is_generating = False
            self._has_changed.notify_all()

    def wait_until_under_way(self, requests: int = 1) -> None:
        with self._has_changed:
            assert self._has_changed.wait_for(lambda: self.under_way >= requests, 60)

    def receive(self, path: str, authorization: str | None) -> None:
        """Whether the request is answered."""
        if self.is_starting:
            raise Broken(503, "Loading model")
        if self.key and path.startswith("/v1") and authorization != f"Bearer {self.key}":
            raise Broken(401, "Unauthorized")

    def clear(self) -> None:
        raise NotImplementedError

    def get(self, path: str) -> Answer:
        raise NotImplementedError

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        raise NotImplementedError

    def delete(self, path: str) -> Answer:
        raise Broken(405, "Method Not Allowed")

    def names(self) -> dict[str, str]:
        """The listed names, and the paths of their adapters."""
        raise NotImplementedError

    def read(self, path: str) -> str:
        """The weights in a folder, by their digest."""
        try:
            data = (Path(path) / WEIGHTS).read_bytes()
            json.loads((Path(path) / "adapter_config.json").read_text())
        except OSError as error:
            raise Broken(404, f"no adapter found for {path}") from error
        weights = hashlib.sha256(data).hexdigest()
        if weights in self.refuses:
            raise Broken(500, "LoRA rank 32 is greater than max_lora_rank 16.")
        return weights

    def answer(self, name: str, weights: str) -> Answer:
        self.requests += 1
        if weights in self.fails:
            self.errors += 1
            raise Broken(500, "EngineCore encountered an issue")
        self.answers.append((time.time(), name, weights))
        usage = {"prompt_tokens": 2, "completion_tokens": 3, "details": {"cached": 0}}
        return 200, {"model": name, "choices": [{"text": weights}], "text": weights, "usage": usage}

    def note_most(self) -> None:
        self.most = max(self.most, len(self.names()))

    def listing(self) -> Answer:
        cards = [{"id": name, "root": name, "parent": None} for name in self.models]
        cards += [{"id": name, "root": path, "parent": self.models[0]} for name, path in self.names().items()]
        return 200, {"object": "list", "data": cards}


class FakeVllm(FakeEngine):
    """vLLM 0.33: a front end of names, and an engine that keeps weights by number until `max_cpu_loras` push
    them out.
    """

    kind = "vllm"
    max_cpu_loras = 4
    is_updatable = True
    """Whether it was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    running: tuple[str, ...] = ()
    """What its metrics say that requests are under way for, besides those that are held."""
    is_another_replica: bool = False
    """Whether a load balancer sends requests to load an adapter to another replica."""
    plugin: str | None = None
    """The worker of Adaptry's plugin in it, if it has the plugin."""

    def hold(self, name: str) -> int:
        """Begins a long request."""
        number = self._names[name][1]
        self._held[number] = name
        return number

    def let_go(self, number: int) -> None:
        """Ends it."""
        self._held.pop(number, None)

    def clear(self) -> None:
        self._held: dict[int, str] = {}
        self.started_at = time.time()
        self._names: dict[str, tuple[str, int]] = {}
        self._engine: OrderedDict[int, str] = OrderedDict()
        self._paths: dict[int, str] = {}
        self._numbers = itertools.count(1)

    def names(self) -> dict[str, str]:
        return {name: path for name, (path, _) in dict(self._names).items()}

    def get(self, path: str) -> Answer:
        match path:
            case "/v1/models":
                return self.listing()
            case "/version":
                return 200, {"version": self.version}
            case "/metrics":
                running = ",".join((*self.running, *self._held.values()))
                return 200, (
                    f"process_start_time_seconds {self.started_at}\n"
                    f'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{running}",'
                    f'waiting_lora_adapters=""}} {time.time()}\n'
                    f'vllm:request_success_total{{finished_reason="length"}} {self.requests - self.errors}\n'
                    f'http_requests_total{{handler="/v1/completions",status="5xx"}} {self.errors}\n'
                )
            case _:
                raise Broken(404, "Not Found")

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        match path:
            case "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" if not self.is_updatable:
                return 404, {"detail": "Not Found"}
            case "/v1/load_lora_adapter" if self.is_another_replica:
                return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
            case "/v1/load_lora_adapter":
                return self._load(body["lora_name"], body["lora_path"], body.get("load_inplace", False))
            case "/v1/unload_lora_adapter":
                if body["lora_name"] not in self._names:
                    raise Broken(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
                del self._names[body["lora_name"]]  # the engine keeps the weights
                return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
            case "/v1/completions":
                return self._complete(body["model"])
            case _:
                raise Broken(404, "Not Found")

    def _load(self, name: str, path: str, in_place: bool) -> Answer:
        if name in self._names and not in_place:
            raise Broken(
                400, f"The lora adapter '{name}' has already been loaded. set 'load_inplace' to True"
            )
        number = self._names[name][1] if name in self._names else next(self._numbers)
        self._put(number, path)
        self._names[name] = (path, number)
        self.note_most()
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _put(self, number: int, path: str) -> None:
        self._engine[number], self._paths[number] = self.read(path), path
        self._engine.move_to_end(number)
        while len(self._engine) > self.max_cpu_loras:
            self._engine.popitem(last=False)

    def _complete(self, name: str) -> Answer:
        if name == PLUGIN_PROBE and self.plugin:
            raise Broken(409, f"{PLUGIN_ANSWER}{self.plugin}")
        if name in self.models:
            return self.answer(name, "base")
        if name not in self._names:
            raise Broken(404, f"The model `{name}` does not exist.")
        path, number = self._names[name]
        if any(held == name and other != number for other, held in self._held.items()):
            self.ended = f"two adapters called {name} in one batch"
            raise Broken(500, "EngineCore encountered an issue")
        if number not in self._engine:
            self._put(number, path)  # it was pushed out, and comes back from its path
        self._engine.move_to_end(number)
        return self.answer(name, self._engine[number])


class FakeSglang(FakeEngine):
    """SGLang 0.5.23: an unloaded adapter is loaded again, from its former path, by the next request that
    names it.
    """

    kind = "sglang"
    version = "0.5.23"

    def clear(self) -> None:
        self._loaded: dict[str, tuple[str, str]] = {}
        self._remembered: dict[str, str] = {}

    def names(self) -> dict[str, str]:
        return {name: path for name, (path, _) in dict(self._loaded).items()}

    def get(self, path: str) -> Answer:
        match path:
            case "/get_server_info":
                return 200, {
                    "version": self.version,
                    "max_loras_per_batch": 8,
                    "max_lora_rank": 64,
                    "served_model_name": self.models[0],
                    "model_path": self.models[0],
                }
            case "/v1/models":
                return self.listing()
            case "/metrics":
                return 200, (
                    f"sglang:num_requests_total {self.requests}\n"
                    f"sglang:num_aborted_requests_total {self.errors}\n"
                )
            case _:
                raise Broken(404, "Not Found")

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        match path:
            case "/load_lora_adapter":
                return self._load(body["lora_name"], body["lora_path"])
            case "/unload_lora_adapter":
                if body["lora_name"] not in self._loaded:
                    return self._told(f"LoRA adapter {body['lora_name']} is not loaded")
                del self._loaded[body["lora_name"]]
                return self._told()
            case "/generate":
                return self._generate(body["lora_path"])
            case "/v1/completions":
                _, colon, adapter = body["model"].partition(":")
                return self._generate(adapter if colon else body["lora_path"])
            case _:
                raise Broken(404, "Not Found")

    def _load(self, name: str, path: str) -> Answer:
        if name in self._loaded:
            return self._told(f"LoRA adapter with name {name} already exists")
        try:
            self._loaded[name] = (path, self.read(path))
        except Broken as broken:
            return self._told(str(broken))
        self._remembered[name] = path
        self.note_most()
        return self._told()

    def _generate(self, name: str) -> Answer:
        if name not in self._loaded:
            if name not in self._remembered:
                raise Broken(400, f"The following requested LoRA adapters are not loaded: {{'{name}'}}")
            path = self._remembered[name]
            self._loaded[name] = (path, self.read(path))  # "Reloading evicted adapter"
        return self.answer(name, self._loaded[name][1])

    def _told(self, error: str | None = None) -> Answer:
        loaded = self.names()
        told = {"success": error is None, "error_message": error or "", "loaded_adapters": loaded}
        return 400 if error else 200, told


class FakeMistralRs(FakeEngine):
    """mistral.rs: an alias refers to a generation, and moves to another by compare-and-swap."""

    kind = "mistralrs"

    def clear(self) -> None:
        self._aliases: dict[str, tuple[str, str]] = {}

    def names(self) -> dict[str, str]:
        return {name: path for name, (path, _) in dict(self._aliases).items()}

    def get(self, path: str) -> Answer:
        match path:
            case "/v1/lora_adapters":
                data = [
                    {"id": name, "source": source, "generation": weights, "rank": 4, "bytes": 1}
                    for name, (source, weights) in self._aliases.items()
                ]
                return 200, {
                    "object": "list",
                    "data": data,
                    "generations": [],
                    "max_rank": 256,
                    "max_adapters": 16,
                }
            case "/v1/models":
                return self.listing()
            case _:
                raise Broken(404, "Not Found")

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        known = {
            "lora_name",
            "lora_path",
            "load_inplace",
            "expected_generation",
            "model",
            "prompt",
            "max_tokens",
        }
        if body.keys() - known:
            raise Broken(422, "unknown field")
        match path:
            case "/v1/load_lora_adapter":
                self._require(body)
                if body["lora_name"] in self._aliases and not body.get("load_inplace"):
                    raise Broken(409, "adapter already loaded")
                self._aliases[body["lora_name"]] = (body["lora_path"], self.read(body["lora_path"]))
                self.note_most()
                return 200, {"ok": True}
            case "/v1/unload_lora_adapter":
                self._require(body)
                if self._aliases.pop(body["lora_name"], None) is None:
                    raise Broken(404, "unknown adapter")
                return 200, {"ok": True}
            case "/v1/completions":
                if body["model"] not in self._aliases:
                    raise Broken(404, "unknown adapter")
                return self.answer(body["model"], self._aliases[body["model"]][1])
            case _:
                raise Broken(404, "Not Found")

    def _require(self, body: dict[str, Any]) -> None:
        expected = body.get("expected_generation")
        held = self._aliases.get(body["lora_name"])
        if expected is not None and (held is None or held[1] != expected):
            raise Broken(409, "generation mismatch")


class FakeLorax(FakeEngine):
    """LoRAX: a folder's path is the name, read once and never again; there is no way to list or to unload."""

    kind = "lorax"

    def clear(self) -> None:
        self._adapters: dict[str, str] = {}

    def names(self) -> dict[str, str]:
        return {path: path for path in self._adapters}

    def get(self, path: str) -> Answer:
        if path == "/health":
            return 200, ""
        raise Broken(404, "Not Found")

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        match path:
            case "/generate":
                name = body["parameters"]["adapter_id"]
                if name not in self._adapters:
                    self._adapters[name] = self.read(name)
                return self.answer(name, self._adapters[name])
            case "/_restart":
                self.clear()
                return 200, {}
            case _:
                raise Broken(404, "Not Found")


class FakeLlamaCpp(FakeEngine):
    """llama.cpp's server: the files with which it was started, by number, each with a scale that a request
    can override.
    """

    kind = "llamacpp"
    listed: Path | None = None
    interrupted = 0
    """Long answers that a restart ended."""

    def clear(self) -> None:
        self._files: list[str] = []
        self._held: list[str] = []
        self._scales: list[float] = []

    def names(self) -> dict[str, str]:
        return {file: file for file in self._files}

    def get(self, path: str) -> Answer:
        match path:
            case "/health":
                return 200, {"status": "ok"}
            case "/props":
                return 200, {"default_generation_settings": {}, "model_alias": self.models[0]}
            case "/v1/models":
                return 200, {"object": "list", "data": [{"id": self.models[0], "object": "model"}]}
            case "/lora-adapters":
                rows = enumerate(zip(self._files, self._scales, strict=True))
                return 200, [{"id": number, "path": file, "scale": scale} for number, (file, scale) in rows]
            case _:
                raise Broken(404, "Not Found")

    def post(self, path: str, body: Any) -> Answer:
        match path:
            case "/lora-adapters":
                for one in body:
                    self._scales[one["id"]] = one["scale"]
                return 200, {"success": True}
            case "/completion":
                chosen = [one["id"] for one in body.get("lora", []) if one["scale"]]
                assert len(chosen) == 1
                return self.answer(self._files[chosen[0]], self._held[chosen[0]])
            case "/v1/completions":
                scales = {one["id"]: one["scale"] for one in body.get("lora", [])}
                said = [
                    self._held[number] if scale == 1 else f"{self._held[number]}*{scale}"
                    for number, scale in scales.items()
                    if scale and number < len(self._held)  # it ignores others
                ]
                return self.answer(body["model"], " + ".join(said) or "base")
            case "/_restart":
                self.interrupted += self.under_way
                self.clear()
                self._files = Path(body["listed"]).read_text().split()
                self._held = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in self._files]
                self._scales = [1.0] * len(self._files)  # as it does without --lora-init-without-apply
                return 200, {}
            case _:
                raise Broken(404, "Not Found")


class FakeDynamo(FakeEngine):
    """The system port of a worker of Dynamo 1.6, as documented."""

    kind = "dynamo"

    def clear(self) -> None:
        self._loaded: dict[str, tuple[str, str]] = {}

    def names(self) -> dict[str, str]:
        return {name: path for name, (path, _) in dict(self._loaded).items()}

    def get(self, path: str) -> Answer:
        if path != "/v1/loras":
            raise Broken(404, "Route not found")
        loras = {name: number for number, name in enumerate(self._loaded, 1)}
        return 200, {"status": "success", "loras": loras, "count": len(loras)}

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        name, uri = body["lora_name"], body["source"]["uri"]
        assert path == "/v1/loras" and uri.startswith("file:///")
        if name not in self._loaded:  # otherwise it reports success, and nothing is loaded
            self._loaded[name] = (uri.removeprefix("file://"), self.read(uri.removeprefix("file://")))
        return 200, {"status": "success", "lora_name": name, "lora_id": 1}

    def delete(self, path: str) -> Answer:
        name = unquote(path.removeprefix("/v1/loras/"))
        if name not in self._loaded:
            return 404, {"status": "error", "message": f"LoRA adapter '{name}' not found"}
        del self._loaded[name]
        return 200, {"status": "success", "lora_name": name, "lora_id": 1}


FAKES: dict[str, type[FakeEngine]] = {fake.kind: fake for fake in (FakeVllm, FakeSglang, FakeMistralRs)}
FIXED: dict[str, type[FakeEngine]] = {fake.kind: fake for fake in (FakeLorax, FakeLlamaCpp)}
"""Engines that keep their adapters until they are restarted."""
PUBLISHED: dict[str, type[FakeEngine]] = {FakeDynamo.kind: FakeDynamo}
"""Engines that are imitated from their documentation alone."""
