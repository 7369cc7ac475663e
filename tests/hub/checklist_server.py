"""Starts a server with adapters, and runs one line of the checklist with one client; both are processes.

`serving` starts `adaptry serve` on a new folder, with tokens created by the command line; `Site.run` runs a
flow with the client's Python. The client's final result is an `Outcome`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors
from adaptry.testing.warm_python import WarmPython, run_warm

from .lines import Client, Line

ADAPTRY = (sys.executable, "-m", "adaptry_cli")
WEIGHTS = "adapter_model.safetensors"
CARD = """---
base_model: org/tiny
library_name: peft
tags: [tone]
license: mit
---
# Tone
"""
_NAMESPACES = {
    "alice": ("writer", "alice", "acme"),
    "reader": ("reader", "acme"),
    "stranger": ("writer", "elsewhere"),
}
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a line: `failure` is the end of the client's output, `cannot` names a feature that this
    client lacks.
    """

    failure: str = ""
    cannot: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """A running server, tokens by their owners, and the folders of `folders()`."""

    url: str
    data: Path
    process: int
    tokens: dict[str, str]
    folders: Path

    def run(self, client: Client, line: Line) -> Outcome:
        """Runs the line by the client, with a new home folder."""
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "files").mkdir()
            told = {
                "endpoint": self.url,
                "tokens": self.tokens,
                "folders": str(self.folders),
                "scratch": f"{scratch}/files",
                "prefix": f"{client.name}-{line.number}",
                "adaptry": ADAPTRY,
                "proxy": line.proxied,
            }
            command = [*client.program, line.family, str(line.number), json.dumps(told)]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    check=False,
                    env=environment(self.url, self.tokens["alice"], Path(scratch)) | dict(client.variables),
                    timeout=_SECONDS,
                )
            except subprocess.TimeoutExpired:
                return Outcome(failure=f"no answer within {_SECONDS} seconds")
        if done.returncode:
            return Outcome(failure=done.stderr[-4000:] or f"exit code {done.returncode}")
        told_back = json.loads(done.stdout.splitlines()[-1])
        return Outcome(cannot=told_back["cannot"] if told_back else "")


def environment(url: str, token: str, home: Path) -> dict[str, str]:
    """Only the variables that a user sets: no caches or settings of this machine's user or of these tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "ADAPTRY_", "PYTEST_")) and name != "PYTHONPATH"
    }
    return kept | {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(home / "hf"), "HOME": str(home)}


@contextmanager
def serving(folder: Path, *options: str, **settings: str) -> Iterator[Site]:
    """`adaptry serve`, until the block ends; `org/tiny`, the adapters' base, is stored there."""
    data = folder / "data"
    sources = folders(folder / "sources")
    env = {**os.environ, **settings}
    command = [*ADAPTRY, "serve", "--data", str(data), "--port", "0", "--anonymous-read", *options]
    with (
        (folder / "server.log").open("w") as log,
        WarmPython(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env) as process,
    ):
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            assert url, (folder / "server.log").read_text()
            stored = ("--name", "org/tiny", "--store", "--visibility", "internal", "--registry", str(data))
            _adaptry("base", "add", str(sources / "base"), *stored)
            tokens = {who: _token(data, who, *holds) for who, holds in _NAMESPACES.items()}
            yield Site(url, data, process.pid, tokens, sources)
        finally:
            process.terminate()


def folders(folder: Path) -> Path:
    """The base and the adapters to push (see `flows/world.py`), made once."""
    tiny_base(folder / "base")
    for name, seed in (("first", 1), ("second", 2)):
        tiny_lora(folder / name, seed=seed)
    tiny_lora(folder / "misfit", hidden=32, seed=3)
    large_lora(folder / "large", megabytes=30)
    large_lora(folder / "noise", megabytes=4)
    large_lora(folder / "zeros", megabytes=4, zeros=True)
    for name in ("first", "second", "misfit", "large"):
        (folder / name / "README.md").write_text(CARD)
    return folder


def large_lora(folder: Path, megabytes: int, *, zeros: bool = False, seed: int = 0) -> Path:
    """A LoRA of about that size that passes the checks, with float32 noise between -1 and 1, or with
    zeros.
    """
    tiny_lora(folder, layers=1, hidden=2, targets=("q_proj",), base_name="org/other")
    noise = random.Random(seed)
    tensors = {}
    for layer in range(megabytes):
        for part, shape in (("lora_A", (4, 1 << 15)), ("lora_B", (1 << 15, 4))):
            key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.{part}.weight"
            tensors[key] = ("F32", shape, bytes(1 << 19) if zeros else _noise(noise))
    write_safetensors(folder / WEIGHTS, dict(sorted(tensors.items())), {"format": "pt"})
    return folder


def _noise(source: random.Random) -> bytes:
    """Half a MiB of finite float32: random bits, with an exponent below that of 1."""
    data = bytearray(source.randbytes(1 << 19))
    data[3::4] = data[3::4].translate(bytes((byte & 0x80) | 0x3E for byte in range(256)))
    return bytes(data)


def _token(data: Path, who: str, role: str, *namespaces: str) -> str:
    holds = [word for namespace in namespaces for word in ("--namespace", namespace)]
    return _adaptry("token", "create", who, "--role", role, *holds, "--data", str(data)).strip()


def _adaptry(*words: str) -> str:
    done = run_warm([*ADAPTRY, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
