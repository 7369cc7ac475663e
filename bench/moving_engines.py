"""The engines of `alias_moves.py`: real ones on this CPU, each with a tiny base and adapters with a large
effect, and the program that follows the alias.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # engines are started as the tests start them

from tests.formats.other_environment import OtherEnvironment
from tests.vllm import models, vllm_server

from adaptry.testing.ports import free_ports
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

PROD = "acme/tone@prod"
CLIENTS = 8
_ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 300


@dataclass(frozen=True)
class Client:
    """Asks by OpenAI's API. Each request has its own connection: servers close idle ones, vLLM's after 5 s,
    and a request that is sent in that moment fails."""

    url: str
    prompt: Any = models.PROMPT
    pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=2 * CLIENTS, retries=False, timeout=300)
    )

    def ask(self, tokens: int) -> tuple[int, str]:
        """The status and the response."""
        try:
            answer = self._complete(tokens)
        except urllib3.exceptions.HTTPError as error:
            return 0, str(error)
        if answer.status != 200:
            return answer.status, answer.data.decode()
        return 200, str(answer.json()["choices"][0]["text"])

    def model(self) -> str:
        """The name of the model that answers."""
        return str(self._complete(1).json().get("model"))

    def _complete(self, tokens: int) -> urllib3.BaseHTTPResponse:
        body = {"model": PROD, "prompt": self.prompt, "max_tokens": tokens, "ignore_eos": True}
        return self.pool.request(
            "POST",
            f"{self.url}/v1/completions",
            json={**body, "temperature": 0},
            headers={"Connection": "close"},
        )


Running = Callable[[Path, Server, Path], AbstractContextManager[Client]]


@dataclass(frozen=True)
class MovingEngine:
    """`running` serves a base with `acme/tone@prod` kept up to date, in a folder, until its block ends.
    `most_tokens`: the maximum number of tokens in one answer. With the plugin, which reports after it has
    switched, an answer confirms a move.
    """

    base: Callable[[Path], Path]
    adapter: Callable[[Path, int], Path]
    running: Running
    most_tokens: int = 3000
    confirms_by_answer: bool = False


def _vllm_base(folder: Path) -> Path:
    return models.model(folder, positions=4096)


def _vllm_adapter(folder: Path, seed: int) -> Path:
    return models.adapter(folder, seed=seed)


def _vllm(how: str) -> Running:
    @contextlib.contextmanager
    def serve(folder: Path, server: Server, base: Path) -> Iterator[Client]:
        more, site = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}, folder
        if how == "plugin":
            site = vllm_server.installed(vllm_server.PYTHON.python, folder / "wheel")
            more |= {
                "ADAPTRY_URL": server.url,
                "ADAPTRY_TOKEN": server.token("gpu-1", "worker", ("acme",)),
                "ADAPTRY_CACHE": str(folder / "cache"),
            }
        env = vllm_server.environment(site, folder / "home", **more)
        options = ("--max-model-len", "4096", "--max-num-seqs", "16")
        options += ("--max-loras", "4", "--max-cpu-loras", "4")
        with vllm_server.serving(vllm_server.PYTHON.python, base, env, folder / "vllm.log", options) as vllm:
            _share_a_core(vllm.process.pid)
            if how == "plugin":
                yield Client(vllm.url)
                return
            with following(folder, server, "vllm", vllm.url, has_proxy=how == "proxy") as url:
                yield Client(url)

    return serve


def _share_a_core(server: int) -> None:
    """Puts the processes of vLLM's engine on one core. They wait for each other in loops that never sleep,
    and one of them at a time has work. With a core for each, on a machine of two cores, they keep the API
    server, the clients and the registry from answering.
    """
    first = min(os.sched_getaffinity(0))
    for process in _descendants(server):
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {first})


def _descendants(process: int) -> Iterator[int]:
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from _descendants(child)


def _word_base(folder: Path) -> Path:
    from tests.runtimes.cases import made_base

    return made_base(folder, max_position_embeddings=4096).folder


def _attention_adapter(folder: Path, seed: int) -> Path:
    return tiny_lora(folder, hidden=64, seed=seed, alpha=400, targets=("q_proj", "o_proj"))


@contextlib.contextmanager
def _mistralrs(folder: Path, server: Server, base: Path) -> Iterator[Client]:
    python = OtherEnvironment("mistralrs", "../engines/mistralrs_server.py").python
    port = folder / "port"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            [python, _ROOT / "tests" / "engines" / "mistralrs_server.py", base, port],
            stdout=log,
            stderr=log,
            env=env,
        )
    try:
        _wait_for(port.exists)
        url = f"http://127.0.0.1:{port.read_text()}"
        with following(folder, server, "mistralrs", url) as url:
            yield Client(url, "w5 w9 w11 w40 w7 w100")
    finally:
        process.kill()
        process.wait()


def _llamacpp_base(folder: Path) -> Path:
    """The base as a llama.cpp file, which is next to the folder."""
    import gguf
    import torch
    from tests.exporting.llamacpp import VOCABULARY, write_base
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=VOCABULARY, initializer_range=0.2, max_position_embeddings=4096,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    interleaved = {"q_proj.weight": 4, "k_proj.weight": 4}
    write_base(model, gguf.MODEL_ARCH.LLAMA, folder.with_suffix(".gguf"), interleaved)
    return folder


def _llamacpp_adapter(folder: Path, seed: int) -> Path:
    return tiny_lora(folder, hidden=64, seed=seed, alpha=400)


def _llamacpp(has_proxy: bool) -> Running:
    @contextlib.contextmanager
    def serve(folder: Path, server: Server, base: Path) -> Iterator[Client]:
        (port,), pidfile = free_ports(1), folder / "pid"
        script = [sys.executable, str(_ROOT / "examples" / "serving" / "llama_server.py"), "restart"]
        restart = [*script, str(base.with_suffix(".gguf")), str(port), str(pidfile), str(CLIENTS)]
        export = [sys.executable, "-m", "adaptry_cli", "export", "{folder}", "--for", "llama.cpp"]
        export += ["--base", str(base), "-o", "{file}"]
        subprocess.run(restart, check=True)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(lambda: _is_up(url))
            more = ("--restart", " ".join(restart), "--prepare", " ".join(export))
            with following(folder, server, "llamacpp", url, *more, has_proxy=has_proxy) as url:
                yield Client(url, [5, 9, 11, 40, 7, 100])
        finally:
            os.kill(int(pidfile.read_text()), 9)

    return serve


ENGINES = {
    "vllm": MovingEngine(_vllm_base, _vllm_adapter, _vllm("follow")),
    "vllm-proxy": MovingEngine(_vllm_base, _vllm_adapter, _vllm("proxy")),
    "vllm-plugin": MovingEngine(_vllm_base, _vllm_adapter, _vllm("plugin"), confirms_by_answer=True),
    "mistralrs": MovingEngine(_word_base, _attention_adapter, _mistralrs),
    "llamacpp-proxy": MovingEngine(_llamacpp_base, _llamacpp_adapter, _llamacpp(has_proxy=True), 1500),
}


@contextlib.contextmanager
def following(
    folder: Path, server: Server, kind: str, url: str, *more: str, has_proxy: bool = False
) -> Iterator[str]:
    """The address for clients, with `adaptry follow` running."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "adaptry_cli", "follow", "--engine", kind, "--url", url]
    command += ["--watch", PROD, "--name", "gpu-1", "--cache", str(folder / "cache"), "--base", "org/tiny"]
    command += ["--proxy", f"127.0.0.1:{port}"] if has_proxy else []
    env = {
        **os.environ,
        "ADAPTRY_URL": server.url,
        "ADAPTRY_TOKEN": server.token("gpu-1", "worker", ("acme",)),
    }
    with (folder / "follow.log").open("wb") as log:
        process = subprocess.Popen([*command, *more], env=env, stderr=log, stdout=log)
    try:
        yield f"http://127.0.0.1:{port}" if has_proxy else url
    finally:
        process.terminate()
        process.wait()
        if os.environ.get("SHOW_LOG"):
            shutil.copyfileobj((folder / "follow.log").open(), sys.stderr)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"the engine did not start within {_START_SECONDS} s"
        time.sleep(0.1)


def _is_up(url: str) -> bool:
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return urllib3.request("GET", f"{url}/health", retries=False, timeout=5).status == 200
    return False
