"""Runs in the environment of mistral.rs: the real engine, behind the LoRA routes that it documents.

Its Python package is a library without a server, so the routes, status codes and listings are ours, modelled
on `mistralrs-server-core`; loading, compare-and-swap, leases and responses are the engine's.

`mistralrs_server.py BASE PORTFILE` writes its port to the file when it is ready.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mistralrs import ChatCompletionRequest, LoraAdapterError, ModelDType, Runner, Which

STATUS = {
    "lora_adapter_not_found": 404,
    "adapter_file_not_found": 404,
    "lora_adapter_already_loaded": 409,
    "lora_generation_mismatch": 409,
    "lora_alias_limit_exceeded": 409,
}


class Routes(BaseHTTPRequestHandler):
    """The routes, which call the only runner. (`Any` throughout: JSON.)"""

    runner: Runner
    base: str
    sources: dict[str, str]
    calling = threading.Lock()
    """The runner takes one call at a time; answers are read side by side."""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self.path:
            case "/v1/lora_adapters":
                with self.calling:
                    listing = self._listing()
                self._tell(200, listing)
            case "/v1/models":
                self._tell(200, {"object": "list", "data": [{"id": "default", "root": self.base}]})
            case _:
                self._tell(404, {"error": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            if self.path == "/v1/completions":
                self._tell(200, self._answer(body))
                return
            with self.calling:
                told = self._done(body)
            self._tell(200, told)
        except LoraAdapterError as error:
            self._tell(STATUS.get(error.code, 400), {"error": str(error), "code": error.code})
        except ValueError as error:  # a request that names an unknown adapter
            self._tell(404, {"error": str(error)})

    def _done(self, body: dict[str, Any]) -> dict[str, Any]:
        match self.path:
            case "/v1/load_lora_adapter":
                asked = {key: body[key] for key in ("load_inplace", "expected_generation") if key in body}
                info = self.runner.load_lora_adapter(body["lora_name"], body["lora_path"], **asked)
                self.sources[body["lora_name"]] = body["lora_path"]
                return {"id": info.alias, "generation": info.generation}
            case "/v1/unload_lora_adapter":
                expected = body.get("expected_generation")
                info = self.runner.unload_lora_adapter(body["lora_name"], expected_generation=expected)
                return {"id": info.alias, "generation": info.generation}
            case _:
                raise ValueError("Not Found")

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        adapter = None if body["model"] == "default" else body["model"]
        asked = ChatCompletionRequest(
            messages=body["prompt"], model="default", max_tokens=body["max_tokens"], temperature=0.0,
            logprobs=True, top_logprobs=8, adapter=adapter, stream=True,
        )  # fmt: skip
        with self.calling:
            stream = self.runner.send_chat_completion_request(asked)
        parts = list(stream)
        tops = (part.choices[0].logprobs.top_logprobs for part in parts if part.choices[0].logprobs)
        top = [[one.token, one.logprob] for one in next(tops)]
        choices = [{"text": "".join(part.choices[0].delta.content or "" for part in parts)}]
        return {"adapter_generation": parts[-1].adapter_generation, "top": top, "choices": choices}

    def _listing(self) -> dict[str, Any]:
        status = self.runner.lora_adapter_status()
        data = [
            {
                "id": one.alias,
                "source": self.sources[one.alias],
                "generation": one.generation,
                "rank": one.rank,
            }
            for one in status.adapters
        ]
        generations = [
            {"generation": one.generation, "aliases": one.aliases, "active_leases": one.active_leases}
            for one in status.generations
        ]
        limits = {"max_rank": status.max_rank, "max_adapters": status.max_adapters}
        return {"object": "list", "data": data, "generations": generations, **limits}

    def _tell(self, status: int, told: dict[str, Any]) -> None:
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if self.close_connection:  # otherwise the client might reuse the connection
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Writes no log: the test has the responses."""


def main(base: str, portfile: str) -> None:
    Routes.runner = Runner(Which.Lora(model_id=base, dtype=ModelDType.F32, adapters=[], max_adapters=4))
    Routes.base, Routes.sources = base, {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Routes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = Path(portfile).with_suffix(".part")
    found.write_text(str(server.server_port))
    found.rename(portfile)
    threading.Event().wait()


main(*sys.argv[1:])
