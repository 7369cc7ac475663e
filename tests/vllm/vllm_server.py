"""A real vLLM on the CPU with Adaptry installed: its HTTP server as a process, and functions to query it.

`.venvs/vllm` has vLLM without Adaptry; a wheel of this tree is put on its path, so that plugins are found as
in a real installation.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from ..formats.other_environment import OtherEnvironment

PYTHON = OtherEnvironment("vllm", "vllm_library.py")
"""`make environments` makes it."""
ROOT = Path(__file__).parents[2]
NAME = "tiny"
START_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. (`Any`: JSON.)"""

    status: int
    body: Any

    @property
    def text(self) -> str:
        assert self.status == 200, self.body
        text: str = self.body["choices"][0]["text"]
        return text

    @property
    def model(self) -> str:
        """The name of the model that answered."""
        assert self.status == 200, self.body
        model: str = self.body["model"]
        return model

    @property
    def reason(self) -> str:
        assert self.status != 200, self.body
        reason: str = self.body["error"]["message"]
        return reason


@dataclass(frozen=True, slots=True)
class Vllm:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def complete(self, model: str, prompt: str, tokens: int = 12) -> Answer:
        """A greedy completion, with the logprobs of the chosen tokens."""
        asked = {"model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        return self.ask("POST", "/v1/completions", {**asked, "temperature": 0, "logprobs": 1})

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        answer = urllib3.request(method, self.url + path, json=body, timeout=600, retries=False)
        kind = answer.headers.get("Content-Type", "")
        return Answer(answer.status, answer.json() if "json" in kind else answer.data.decode())

    def names(self) -> dict[str, str]:
        """The loaded names, with their folders."""
        cards = self.ask("GET", "/v1/models").body["data"]
        return {card["id"]: card["root"] for card in cards if card.get("parent")}


def installed(python: str, folder: Path) -> Path:
    """A folder with this tree's wheel in it, as that Python installs it, without its dependencies."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return target


def environment(site: Path, home: Path, **more: str) -> dict[str, str]:
    """The environment of a vLLM process: quiet, offline, small, with our wheel and without a registry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADAPTRY_", "PYTHON"))}
    return {
        **kept,
        "PYTHONPATH": str(site),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "ADAPTRY_HOME": str(home),
        **more,
    }


@contextlib.contextmanager
def serving(
    python: str, model: Path, env: Mapping[str, str], log: Path, options: tuple[str, ...] = ()
) -> Iterator[Vllm]:
    """A server of `model` with adapters of rank 16 and less, until the block ends."""
    with held_port() as port, served_at(python, model, env, log, options, port) as server:
        yield server


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A free port, reserved until a process binds it with SO_REUSEADDR, as vLLM does."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def served_at(
    python: str, model: Path, env: Mapping[str, str], log: Path, options: tuple[str, ...], port: int
) -> Iterator[Vllm]:
    command = [
        *(
            python,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(model),
            "--served-model-name",
            NAME,
        ),
        *(
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--enable-lora",
            "--max-loras",
            "2",
            "--max-cpu-loras",
            "2",
        ),
        *("--max-lora-rank", "16", "--max-model-len", "64", "--max-num-seqs", "4", "--enforce-eager"),
        *("--dtype", "float32", *options),
    ]  # float32: with bfloat16 it uses AMX kernels, which some machines report but cannot run
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=output, start_new_session=True
        )
    server = Vllm(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for(server)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its engine is a separate process
        process.wait()


def _wait_for(server: Vllm) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if server.ask("GET", "/health").status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(server.log.read_text()[-3000:])


def offline(
    env: Mapping[str, str], model: Path, prompt: str, adapters: Sequence[Path], **options: object
) -> list[list[float] | str]:
    """The output of an engine without a server, for the model and with each adapter: logprobs, or the reason
    of a refusal.
    """
    script = Path(__file__).with_name("vllm_library.py")
    command = [PYTHON.python, str(script), str(model), json.dumps(options), prompt, *map(str, adapters)]
    run = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found: list[list[float] | str] = json.loads(run.stdout.splitlines()[-1])
    return found
