"""`adaptry runtime compare`: engines are detected from recorded responses, and adapters are compared with
them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adaptry.core.errors import NotFound, Unavailable
from adaptry.integrations.engine_probe import probe_engine
from adaptry.testing.samples import tiny_lora

Answers = Mapping[str, Any]  # JSON, or unchanged text

METRICS = """# HELP vllm:lora_requests_info Running stats on lora requests.
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.7e+09
"""
VLLM: Answers = {
    "/version": {"version": "0.33.0"},
    "/v1/models": {
        "object": "list",
        "data": [
            {"id": "served", "object": "model", "owned_by": "vllm", "root": "org/tiny", "parent": None},
            {"id": "old", "object": "model", "owned_by": "vllm", "root": "/adapters/old", "parent": "served"},
        ],
    },
    "/metrics": METRICS,
}
SGLANG: Answers = {
    "/get_server_info": {
        "version": "0.5.23",
        "model_path": "org/tiny",
        "served_model_name": "org/tiny",
        "enable_lora": True,
        "max_lora_rank": 4,
        "max_loras_per_batch": 8,
        "lora_target_modules": ["q_proj", "v_proj"],
        "lora_strict_loading": False,
    },
    "/v1/models": VLLM["/v1/models"],
}
LLAMACPP: Answers = {
    "/props": {"default_generation_settings": {}, "total_slots": 1, "model_path": "/models/tiny.gguf"},
    "/v1/models": {"object": "list", "data": [{"id": "/models/tiny.gguf", "owned_by": "llamacpp"}]},
}
MISTRALRS: Answers = {
    "/v1/lora_adapters": {
        "object": "list",
        "data": [],
        "max_adapters": 16,
        "max_rank": 256,
        "max_bytes": 8 << 30,
    },
    "/v1/models": {"object": "list", "data": [{"id": "org/tiny", "owned_by": "local"}]},
}


@pytest.fixture
def engine() -> Iterator[Callable[[Answers], str]]:
    """Starts a server that answers like a recording; returns its address."""
    started: list[ThreadingHTTPServer] = []

    def start(answers: Answers) -> str:
        class Recorded(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = answers.get(self.path)
                data = (found if isinstance(found, str) else json.dumps(found)).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Recorded)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "runtime", "models"),
    [
        (VLLM, "vllm@0.33.0,max_loras=4", ("org/tiny", "served")),
        (
            SGLANG,
            "sglang@0.5.23,max_lora_rank=4,max_loras_per_batch=8,lora_target_modules=q_proj+v_proj",
            ("org/tiny",),
        ),
        (LLAMACPP, "llama.cpp", ("/models/tiny.gguf",)),
        (MISTRALRS, "mistral.rs,lora_max_rank=256,lora_max_adapters=16", ("org/tiny",)),
    ],
    ids=["vllm", "sglang", "llama.cpp", "mistral.rs"],
)
def test_an_engine_is_recognised_by_its_responses(
    engine, answers: Answers, runtime: str, models: tuple[str, ...]
) -> None:
    found = probe_engine(engine(answers))
    assert (str(found.runtime), found.models) == (runtime, models)


def test_loaded_adapters_are_distinguished_from_bases(engine) -> None:
    assert probe_engine(engine(VLLM)).adapters == ("old",)


@pytest.mark.parametrize(
    "answers", [{}, {"/version": "x" * 10}, {"/version": {"version": None}}, {"/props": [1]}]
)
def test_a_server_that_is_not_an_engine_is_reported(engine, answers: Answers) -> None:
    with pytest.raises(NotFound, match="--runtime ENGINE"):
        probe_engine(engine(answers))


def test_an_unreachable_engine_is_reported(engine) -> None:
    with pytest.raises(Unavailable, match="nothing answers"):
        probe_engine("http://127.0.0.1:9")


@pytest.fixture
def stocked(run, base: Path, out: Path, better: Path, tmp_path: Path) -> None:
    """A registry with a base and three adapters of it, one of them with rsLoRA."""
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone")
    run("push", "./better", "acme/better")
    tiny_lora(tmp_path / "rs", seed=3, config={"use_rslora": True})
    run("push", "./rs", "acme/rooted")


@pytest.mark.usefixtures("stocked")
def test_the_adapters_that_a_server_serves_as_trained_are_listed(run, answer, engine) -> None:
    result = run("runtime", "compare", engine(VLLM))
    assert set(result.stdout.split()) == {"acme/tone@1", "acme/better@1", "acme/rooted@1"}
    assert "vllm@0.33.0" in result.stderr

    result = run("runtime", "compare", engine(SGLANG))
    assert result.stdout.split() == ["acme/tone@1"]  # better has rank 8
    assert "acme/rooted@1" in result.stderr and "adaptry convert" in result.stderr

    found = answer("runtime", "compare", engine(SGLANG))
    assert found["as_trained"] == ["acme/tone@1"]
    assert found["verdicts"]["acme/better@1"]["outcome"] == "refused"


@pytest.mark.usefixtures("stocked")
def test_limits_that_a_server_does_not_report_can_be_declared(run, engine) -> None:
    shown = run("runtime", "compare", engine(VLLM), "--runtime", "vllm,max_lora_rank=1").stdout
    assert shown == ""
    assert "not sglang" in run("runtime", "compare", engine(VLLM), "--runtime", "sglang", code=2).stderr


@pytest.mark.usefixtures("stocked")
def test_a_base_known_only_by_a_path_must_be_named(run, engine) -> None:
    url = engine(LLAMACPP)
    assert "--base NAME" in run("runtime", "compare", url, code=3).stderr
    assert "acme/tone@1" in run("runtime", "compare", url, "--base", "org/tiny").stdout


@pytest.mark.usefixtures("stocked")
def test_an_engine_that_reports_nothing_can_be_declared(run, engine) -> None:
    url = engine({})
    assert "--runtime ENGINE" in run("runtime", "compare", url, code=3).stderr
    shown = run("runtime", "compare", url, "--runtime", "lmdeploy", "--base", "org/tiny")
    assert "acme/tone@1" in shown.stdout
