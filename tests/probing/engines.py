"""Fake engines with the interfaces of vLLM, SGLang and llama.cpp that answer with PEFT, possibly with an
adapter other than the requested one.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

Odds = list[tuple[int, float]]
Answer = Callable[[Callable[[str, bool], Odds], str, Mapping[str, Any]], Any]
"""What a path answers: it is given the odds after a prompt with the adapter or without, the path, and the
body.
"""


def vllm(odds: Callable[[str, bool], Odds], path: str, body: Mapping[str, Any]) -> Any:
    if path == "/version":
        return {"version": "0.33.0"}
    if path == "/v1/models":
        base = {"id": "served", "root": "/models/base", "parent": None}
        return {"data": [base, {"id": "acme/tone@prod", "root": "/a", "parent": "served"}]}
    if path == "/v1/completions" and body["model"] in ("served", "acme/tone@prod"):
        assert body["return_tokens_as_token_ids"] is True
        found = odds(body["prompt"], body["model"] != "served")[: body["logprobs"]]
        top = {f"token_id:{token}": value for token, value in found}
        return {"choices": [{"logprobs": {"top_logprobs": [top]}}]}
    return None


def sglang(odds: Callable[[str, bool], Odds], path: str, body: Mapping[str, Any]) -> Any:
    if path == "/get_server_info":
        return {"max_loras_per_batch": 8, "version": "0.5.23", "served_model_name": "served"}
    if path == "/generate":
        found = odds(body["text"], body.get("lora_path") == "acme/tone@prod")[: body["top_logprobs_num"]]
        return {"meta_info": {"output_top_logprobs": [[[value, token, None] for token, value in found]]}}
    return None


def llamacpp(odds: Callable[[str, bool], Odds], path: str, body: Mapping[str, Any]) -> Any:
    if path == "/props":
        return {"default_generation_settings": {}, "model_path": "/models/base.gguf"}
    if path == "/lora-adapters":
        return [
            {"id": 0, "path": "/a/other.gguf", "scale": 0.0},
            {"id": 1, "path": "/a/tone.gguf", "scale": 0.0},
        ]
    if path == "/completion":
        found = odds(body["prompt"], body["lora"] == [{"id": 1, "scale": 1.0}])[: body["n_probs"]]
        top = [{"id": token, "token": "?", "logprob": value} for token, value in found]
        return {"completion_probabilities": [{"id": top[0]["id"], "top_logprobs": top}]}
    return None


@contextlib.contextmanager
def answering(kind: Answer, base: Path, adapter: Path | None) -> Iterator[str]:
    """Runs an engine of that kind until the block ends; yields its address."""
    words = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    changed = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        changed = PeftModel.from_pretrained(changed, str(adapter))

    def odds(prompt: str, with_adapter: bool) -> Odds:
        with torch.no_grad():
            ids = words(prompt, return_tensors="pt").input_ids
            found = torch.log_softmax((changed if with_adapter else plain)(ids).logits[0, -1], -1)
        return [(int(token), float(found[token])) for token in found.argsort(descending=True)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as engines do

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Mapping[str, Any]) -> None:
            found = kind(odds, self.path, body)
            data = json.dumps({"error": "no such thing"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
