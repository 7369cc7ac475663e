"""A worker beside the real llama.cpp, which is started anew for each version: it answers with that, and with
nothing that was recalled.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_probe import probe_engine
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, EngineClient, OperatorCommands
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.state_file import StateFile
from adaptry.integrations.serving.follow.status_report import FollowSettings
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

from .conftest import settle

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
pytest.importorskip("gguf", reason="the base is written by gguf: pip install gguf")
pytestmark = pytest.mark.heavy

TONE = AdapterName.parse("acme/tone")
PROD = "acme/tone@prod"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A free port, and the command that starts llama.cpp there anew; it is started once."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ..exporting.llamacpp import VOCABULARY, gguf, write_base

    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=VOCABULARY, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    turned = {"q_proj.weight": 4, "k_proj.weight": 4}
    file = write_base(model, gguf.MODEL_ARCH.LLAMA, tmp_path / "base.gguf", turned)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pidfile = tmp_path / "pid"
    script = str(Path(__file__).with_name("llamacpp_server.py"))
    command = (sys.executable, script, "restart", str(file), str(port), str(pidfile))
    subprocess.run(command, check=True)
    yield f"http://127.0.0.1:{port}", command
    with suppress(ProcessLookupError):
        os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_versions_and_recalls_beside_the_real_llamacpp(
    tmp_path: Path, address: tuple[str, tuple[str, ...]]
) -> None:
    url, command = address
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        registry = server.registry()
        base_registry.register_base(
            registry,
            open_checkpoint(tmp_path / "base"),
            ("org/tiny",),
            visibility="internal",
            cache=tmp_path / "bases",
        )

        def publish(seed: int) -> VersionInfo:
            folder = tiny_lora(tmp_path / f"lora-{seed}", hidden=64, seed=seed, alpha=400)
            return push(registry, open_dir(folder), TONE).version

        first, second = publish(1), publish(2)
        export = (sys.executable, "-m", "adaptry_cli", "export", "{folder}", "--for", "llama.cpp")
        outside = OperatorCommands(
            tmp_path / "adapters", command, (*export, "--base", str(tmp_path / "base"), "-o", "{file}")
        )
        state_file = StateFile(tmp_path / "state.json")
        worker_registry = server.registry(server.token("gpu-1", "worker", ("acme",)))
        engine = ENGINES["llamacpp"](EngineClient(url), outside, state_file.state.names)
        deps = ReconcilerDeps(
            registry=worker_registry,
            engine=engine,
            cache=Cache(tmp_path / "cache", retry=NO_WAIT),
            state_file=state_file,
            probe=lambda: probe_engine(url),
            inspect=lambda found: inspect_engine(worker_registry, found, None, "org/tiny"),
            log=print,
        )
        reconciler = Reconciler(deps, FollowSettings(name="gpu-1", engine="llamacpp", watch=("acme/*@prod",)))
        outside.run_restart(lambda: is_up(url))

        registry.aliases.move(TONE, "prod", first.digest, None)
        settle(reconciler)
        assert [one.digest for one in engine.list_adapters()] == [first.digest]
        assert {one["scale"] for one in listed(url)} == {0.0}
        assert engine.send_test_request(PROD).is_ok
        plain, once = odds(url, None), odds(url, 0)
        assert plain != once

        registry.aliases.move(TONE, "prod", second.digest, 1)
        settle(reconciler)
        assert [one.digest for one in engine.list_adapters()] == [second.digest]
        assert odds(url, None) == plain
        assert odds(url, 0) not in (plain, once)

        ref = Ref.of_revision(TONE, second.digest)
        change_state(registry, ref, StateChange(state="revoked", reason="for a test"))
        settle(reconciler)
        assert not any(second.digest.hex in str(one["path"]) for one in listed(url))
        assert engine.send_test_request(PROD).status == 404
        (resident,) = registry.workers.residents(ref)
        assert resident.dropped_at is not None


def listed(url: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(EngineClient(url).get("/lora-adapters").text)
    return found


def odds(url: str, number: int | None) -> object:
    """What may follow a prompt and how likely, with the adapter of that number or without any."""
    asked = {"prompt": [5, 9, 11], "n_predict": 1, "n_probs": 5, "temperature": 0.0, "cache_prompt": False}
    if number is not None:
        asked["lora"] = [{"id": number, "scale": 1.0}]
    return EngineClient(url).post("/completion", asked).json["completion_probabilities"]


def is_up(url: str) -> bool:
    try:
        return EngineClient(url).get("/health").is_ok
    except Unavailable:
        return False
