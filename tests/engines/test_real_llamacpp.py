"""A worker with the real llama.cpp, which is restarted for each version: it serves the current version and
never a recalled one. Behind the proxy it serves several adapters at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.gateways import GATEWAYS, gateway_starter

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Unavailable
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_probe import probe_engine
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, Engine, EngineClient, OperatorCommands
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.ports import free_ports
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server, until
from adaptry_cli.follow_servers import open_proxy

from .conftest import settle

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
pytest.importorskip("gguf", reason="the base is written by gguf: pip install gguf")
pytestmark = pytest.mark.heavy

TONE = AdapterName.parse("acme/tone")
PROD = "acme/tone@prod"
PROMPT = [5, 9, 11]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A free port, and the command that restarts llama.cpp there; it has been started once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ..exporting.llamacpp import VOCABULARY, gguf, write_base

    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=VOCABULARY, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    interleaved = {"q_proj.weight": 4, "k_proj.weight": 4}
    file = write_base(model, gguf.MODEL_ARCH.LLAMA, tmp_path / "base.gguf", interleaved)
    (port,) = free_ports(1)
    pidfile = tmp_path / "pid"
    script = str(Path(__file__).parents[2] / "examples" / "serving" / "llama_server.py")
    command = (sys.executable, script, "restart", str(file), str(port), str(pidfile))
    subprocess.run(command, check=True)
    yield f"http://127.0.0.1:{port}", command
    with suppress(ProcessLookupError):
        os.kill(int(pidfile.read_text()), signal.SIGKILL)


class Place:
    """A registry that knows the base, and the commands that an operator gives a worker."""

    def __init__(self, folder: Path, server: Server, command: tuple[str, ...]) -> None:
        self.folder, self.registry, self._server = folder, server.registry(), server
        base_registry.register_base(
            self.registry,
            open_checkpoint(folder / "base"),
            ("org/tiny",),
            visibility="internal",
            cache=folder / "bases",
        )
        export = (sys.executable, "-m", "adaptry_cli", "export", "{folder}", "--for", "llama.cpp")
        export += ("--base", str(folder / "base"), "-o", "{file}")
        self.commands = OperatorCommands(folder / "adapters", command, export)
        self.state_file = StateFile(folder / "state.json")

    def publish(self, seed: int, name: AdapterName = TONE, **options: Any) -> VersionInfo:
        folder = tiny_lora(
            self.folder / f"lora-{seed}", **{"hidden": 64, "seed": seed, "alpha": 400} | options
        )
        return push(self.registry, open_dir(folder), name).version

    def engine(self, url: str) -> Engine:
        return ENGINES["llamacpp"](EngineClient(url), self.commands, self.state_file.state.names)

    def follow(self, url: str, engine: Engine) -> Reconciler:
        registry = self._server.registry(self._server.token("gpu-1", "worker", ("acme",)))
        deps = ReconcilerDeps(
            registry=registry,
            engine=engine,
            cache=Cache(self.folder / "cache", retry=NO_WAIT),
            state_file=self.state_file,
            probe=lambda: probe_engine(url),
            inspect=lambda found: inspect_engine(registry, found, None, "org/tiny"),
            log=print,
        )
        self.commands.run_restart(lambda: is_up(url))
        return Reconciler(deps, FollowSettings(name="gpu-1", engine="llamacpp", watch=("acme/*@prod",)))


def test_versions_and_recalls_beside_the_real_llamacpp(
    tmp_path: Path, address: tuple[str, tuple[str, ...]]
) -> None:
    url, command = address
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        place = Place(tmp_path, server, command)
        registry, engine = place.registry, place.engine(url)
        first, second = place.publish(1), place.publish(2)
        reconciler = place.follow(url, engine)

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


def test_a_server_that_others_restart_answers_as_the_base_if_no_adapter_is_selected(
    tmp_path: Path, address: tuple[str, tuple[str, ...]]
) -> None:
    """A supervisor restarts it with the same list, which would apply all adapters to every request."""
    url, command = address
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        place = Place(tmp_path, server, command)
        version = place.publish(1)
        place.registry.aliases.move(TONE, "prod", version.digest, None)
        reconciler = place.follow(url, place.engine(url))
        settle(reconciler)
        plain, once = odds(url, None), odds(url, 0)

        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        reconciler.reconcile(0.0)
        assert not place.registry.workers.get("gpu-1").is_answering

        subprocess.run(command, check=True, env=os.environ | {"ADAPTRY_ADAPTERS": str(tmp_path / "adapters")})
        until(lambda: is_up(url), bool)
        assert odds(url, None) == once
        settle(reconciler)
        assert odds(url, None) == plain
        assert odds(url, 0) == once
        found = place.registry.workers.get("gpu-1")
        assert (found.is_answering, found.base_name) == (True, "org/tiny")


def test_an_adapter_is_judged_as_its_export_repaired_it(
    tmp_path: Path, address: tuple[str, tuple[str, ...]]
) -> None:
    """llama.cpp ignores rsLoRA's scale, so the adapter would be half as strong in a file without the
    repair.
    """
    url, command = address
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        place = Place(tmp_path, server, command)
        version = place.publish(1, alpha=200, config={"use_rslora": True})
        place.registry.aliases.move(TONE, "prod", version.digest, None)
        with open_proxy(place.engine(url), {}, "127.0.0.1:0", None) as proxy:
            settle(place.follow(url, proxy.engine))
            told, wanted = proxied_odds(proxy.url, PROD), peft_odds(tmp_path, [1.0])
            assert max(abs(told[token] - wanted[token]) for token in wanted) < 1e-3


def test_an_adapter_that_its_conversion_does_not_repair_is_refused_with_the_remedy(
    tmp_path: Path, address: tuple[str, tuple[str, ...]]
) -> None:
    from ..exporting.llamacpp import CONVERTER

    if CONVERTER is None:
        pytest.skip("llama.cpp's converter is not installed: make environments")
    url, command = address
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        place = Place(tmp_path, server, command)
        convert = (sys.executable, str(CONVERTER), "--base", str(tmp_path / "base"), "--outtype", "f32")
        place.commands = replace(place.commands, prepare=(*convert, "--outfile", "{file}", "{folder}"))
        plain = place.publish(1)
        place.registry.aliases.move(TONE, "prod", plain.digest, None)
        reconciler = place.follow(url, place.engine(url))
        settle(reconciler)
        once = odds(url, 0)

        ignored = place.publish(2, config={"use_rslora": True})
        place.registry.aliases.move(TONE, "prod", ignored.digest, 1)
        reconciler.reconcile(0.0)
        (problem,) = place.registry.workers.get("gpu-1").problems
        assert "acme/tone@2 on llama.cpp" in problem.reason
        assert "adaptry convert acme/tone@2 --uniform" in problem.reason
        assert odds(url, 0) == once


def test_several_adapters_answer_one_request_as_pefts_weighted_sum(
    tmp_path: Path, address: tuple[str, tuple[str, ...]]
) -> None:
    url, command = address
    facts = AdapterName.parse("acme/facts")
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        place = Place(tmp_path, server, command)
        for version in (place.publish(1), place.publish(2, facts)):
            place.registry.aliases.move(version.name, "prod", version.digest, None)
        with open_proxy(place.engine(url), {}, "127.0.0.1:0", None) as proxy:
            settle(place.follow(url, proxy.engine))
            for model, weights in {
                PROD: [1.0],
                f"{PROD}+acme/facts@prod=0.5": [1.0, 0.5],
                f"{PROD}=0.25": [0.25],
                f"{PROD}=-1+acme/facts@prod": [-1.0, 1.0],
            }.items():
                told, wanted = proxied_odds(proxy.url, model), peft_odds(tmp_path, weights)
                assert len(told) == len(wanted)
                assert max(abs(told[token] - wanted[token]) for token in told) < 1e-3
            plain = proxied_odds(proxy.url, base_name(url))
            assert max(abs(plain[token] - odds) for token, odds in peft_odds(tmp_path, []).items()) < 1e-3
            missing = EngineClient(proxy.url).post("/v1/completions", {"model": "acme/other@prod"})
            assert missing.status == 404


@pytest.mark.parametrize("proxy_name", sorted(GATEWAYS))
def test_behind_a_proxy_each_tenant_is_answered_with_the_adapters_that_they_may_use(
    tmp_path: Path,
    address: tuple[str, tuple[str, ...]],
    proxy_name: str,
) -> None:
    open_gateway = gateway_starter(proxy_name)
    url, command = address
    facts = AdapterName.parse("acme/facts")
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        place = Place(tmp_path, server, command)
        for version in (place.publish(1), place.publish(2, facts)):
            place.registry.aliases.move(version.name, "prod", version.digest, None)
        zoe, olga = (
            server.token(name, "reader", (f"acme/{of}",)) for name, of in (("zoe", "tone"), ("olga", "*"))
        )
        gate = server.token_of(Identity("gate", (Grant("inference.authorize", Resource("acme")),)))
        registry = int(server.url.rpartition(":")[2])
        with open_proxy(place.engine(url), {}, "127.0.0.1:0", None) as proxy:
            settle(place.follow(url, proxy.engine))
            engine = int(proxy.url.rpartition(":")[2])
            with open_gateway(tmp_path, registry, engine, gate) as gateway:

                def complete(token: str, model: str) -> tuple[int, str | None]:
                    answer = urllib3.request(
                        "POST",
                        f"{gateway}/v1/completions",
                        # Values that llama.cpp would use instead of the model's name if it received them.
                        json={
                            "model": model,
                            "prompt": PROMPT,
                            "max_tokens": 1,
                            "lora": [{"id": 1, "scale": 1}],
                        },
                        headers={"Authorization": f"Bearer {token}"},
                        retries=False,
                    )
                    return answer.status, answer.headers.get("X-Adaptry-Model")

                both = f"{PROD}+acme/facts@prod=0.5"
                status, answered = complete(zoe, PROD)
                assert status == 200 and str(answered).startswith("acme/tone")
                assert [complete(zoe, model)[0] for model in ("acme/facts@prod", both)] == [403, 403]
                assert [complete(olga, model)[0] for model in (PROD, "acme/facts@prod", both)] == [200] * 3


def proxied_odds(url: str, model: str) -> dict[int, float]:
    """The log-probability of each token after the prompt."""
    from ..exporting.llamacpp import VOCABULARY

    asked = {"model": model, "prompt": PROMPT, "max_tokens": 1, "n_probs": VOCABULARY, "temperature": 0.0}
    asked |= {"cache_prompt": False, "logit_bias": [[VOCABULARY - 1, 1000]]}
    answer = EngineClient(url).post("/v1/completions", asked)
    assert answer.is_ok, answer.text
    (choice,) = answer.json["choices"]
    return {one["id"]: one["logprob"] for one in choice["logprobs"]["content"][0]["top_logprobs"]}


def peft_odds(folder: Path, weights: list[float]) -> dict[int, float]:
    """The same, from PEFT with the weighted sum of the first adapters; without weights, from the base."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    if weights:
        names = [f"lora-{number}" for number in range(1, len(weights) + 1)]
        model = PeftModel.from_pretrained(model, str(folder / names[0]), adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(str(folder / name), adapter_name=name)
        if weights != [1.0]:  # PEFT applies rsLoRA's factor a second time to a sum
            model.add_weighted_adapter(names, weights, "together", combination_type="cat")
            model.set_adapter("together")
    with torch.no_grad():
        odds = torch.log_softmax(model(torch.tensor([PROMPT])).logits[0, -1], -1)
    return dict(enumerate(odds.tolist()))


def base_name(url: str) -> str:
    return str(EngineClient(url).get("/v1/models").json["data"][0]["id"])


def listed(url: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(EngineClient(url).get("/lora-adapters").text)
    return found


def odds(url: str, number: int | None) -> object:
    """The possible next tokens and their log-probabilities, with the adapter of that number or without any
    adapter.
    """
    from ..exporting.llamacpp import VOCABULARY

    asked = {"prompt": PROMPT, "n_predict": 1, "n_probs": 5, "temperature": 0.0, "cache_prompt": False}
    asked["logit_bias"] = [[VOCABULARY - 1, 1000]]  # part of a character has no odds
    if number is not None:
        asked["lora"] = [{"id": number, "scale": 1.0}]
    return EngineClient(url).post("/completion", asked).json["completion_probabilities"]


def is_up(url: str) -> bool:
    try:
        return EngineClient(url).get("/health").is_ok
    except Unavailable:
        return False
