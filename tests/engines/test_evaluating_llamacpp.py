"""The real lm-eval measures the real llama.cpp behind the proxy: the results equal PEFT's, and never those of
the bare base.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName
from adaptry.integrations.engine_probe import probe_engine
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, EngineClient, OperatorCommands
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.ports import free_ports
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server
from adaptry_cli.follow_servers import open_proxy

from ..evidence import tiny_task
from ..evidence.tiny_task import eval_command, run_eval
from ..vllm import models
from .conftest import settle
from .test_real_llamacpp import is_up

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
pytest.importorskip("gguf", reason="the base is written by gguf: pip install gguf")
pytestmark = tiny_task.MARKS

TONE = AdapterName.parse("acme/tone")
HEADS = 2


def base_file(folder: Path) -> tuple[Path, Any]:
    """The base as a folder with a tokenizer, and as a file for llama.cpp. (`Any`: the tokenizer.)"""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from ..exporting.llamacpp import gguf, write_base

    base = models.model(folder / "base")
    words = PreTrainedTokenizerFast.from_pretrained(base)
    letters = words.convert_ids_to_tokens(range(len(words)))
    interleaved = {"q_proj.weight": HEADS, "k_proj.weight": HEADS}
    model = AutoModelForCausalLM.from_pretrained(base)
    write_base(model, gguf.MODEL_ARCH.LLAMA, folder / "base.gguf", interleaved, letters=letters)
    return base, words


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A free address, and the command that starts llama.cpp there."""
    (port,) = free_ports(1)
    script = str(Path(__file__).parents[2] / "examples" / "serving" / "llama_server.py")
    pidfile = tmp_path / "pid"
    yield (
        f"http://127.0.0.1:{port}",
        (sys.executable, script, "restart", str(tmp_path / "base.gguf"), str(port), str(pidfile)),
    )
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_an_evaluation_behind_the_proxy_is_of_the_version(
    tmp_path: Path, restarted: tuple[str, tuple[str, ...]]
) -> None:
    url, command = restarted
    base, words = base_file(tmp_path)
    subprocess.run(command, check=True)
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        registry = server.registry()
        known = open_checkpoint(base)
        base_registry.register_base(
            registry, known, ("org/tiny",), visibility="internal", cache=tmp_path / "bases"
        )
        first, second = (
            push(registry, open_dir(models.adapter(tmp_path / f"lora-{seed}", seed=seed)), TONE).version
            for seed in (1, 2)
        )
        registry.aliases.move(TONE, "prod", first.digest, None)
        export = (sys.executable, "-m", "adaptry_cli", "export", "{folder}", "--for", "llama.cpp")
        export += ("--base", str(base), "-o", "{file}")
        commands = OperatorCommands(tmp_path / "adapters", command, export)
        engine = ENGINES["llamacpp"](EngineClient(url), commands, {})
        with open_proxy(engine, {}, "127.0.0.1:0", None) as proxy:
            deps = ReconcilerDeps(
                registry=server.registry(server.token("gpu-1", "worker", ("acme",))),
                engine=proxy.engine,
                cache=Cache(tmp_path / "cache", retry=NO_WAIT),
                state_file=StateFile(tmp_path / "state.json"),
                probe=lambda: probe_engine(url),
                inspect=lambda found: inspect_engine(registry, found, None, "org/tiny"),
                log=print,
            )
            commands.run_restart(lambda: is_up(url))
            settle(Reconciler(deps, FollowSettings(name="gpu-1", engine="llamacpp", watch=("acme/*@prod",))))

            name = f"{TONE}@{first.digest.brief}"
            written = [
                said(proxy.url, name, words(f"Count {number}: {'ab' * number}").input_ids)
                for number in range(tiny_task.DOCUMENTS)
            ]
            tasks = tiny_task.write_tasks(tmp_path / "tasks", written)
            environment = tiny_task.lm_eval_environment(tmp_path, server.url, server.admin)

            def evaluate(ref: str, *more: str, code: int = 0) -> str:
                return run_eval(eval_command(ref, "writing", tasks, base, *more), environment, code)

            evaluate("acme/tone@1", "--engine", proxy.url)
            evaluate("acme/tone@1", "--engine", proxy.url, "--model", "acme/tone@prod")
            evaluate("acme/tone@1")
            values = registry.evidence.list(first.revision_ref, task="writing").items
            assert [one.value for one in values] == [1.0, 1.0, 1.0]

            behind = evaluate("acme/tone@1", "--engine", url, code=1)
            assert "also answers requests for acme/tone@sha256:" in behind
            not_loaded = evaluate("acme/tone@2", "--engine", proxy.url, code=3)
            assert f"does not serve {TONE}@{second.digest.brief}" in not_loaded
            another = evaluate("acme/tone@2", "--engine", proxy.url, "--model", "acme/tone@prod", code=4)
            assert f"with {name}, not with {second.digest.brief}" in another
            assert registry.evidence.list(second.revision_ref).items == ()


def said(url: str, model: str, prompt: list[int]) -> str:
    """The text that the engine generates after a prompt, up to the end of the line."""
    body = {"model": model, "prompt": prompt, "max_tokens": 6, "temperature": 0, "stop": ["\n"]}
    answer = EngineClient(url).post("/v1/completions", body)
    assert answer.is_ok, answer.text
    return str(answer.json["choices"][0]["text"])
