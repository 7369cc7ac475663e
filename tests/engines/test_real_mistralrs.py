"""A worker with the real mistral.rs: a name changes from version to version in one step, and a recalled
version is not served.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import CheckFailed
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_probe import probe_engine
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, EngineClient, OperatorCommands
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

from ..formats.other_environment import OtherEnvironment
from .conftest import settle

ENVIRONMENT = OtherEnvironment("mistralrs", "../engines/mistralrs_server.py")
pytestmark = ENVIRONMENT.marks
TONE = AdapterName.parse("acme/tone")
PROD = "acme/tone@prod"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of mistral.rs, which is started once, and killed at the end."""
    pytest.importorskip("peft")
    from ..runtimes.cases import made_base

    made_base(tmp_path / "base")
    script = Path(__file__).with_name("mistralrs_server.py")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [ENVIRONMENT.python, script, tmp_path / "base", tmp_path / "port"],
            stdout=log,
            stderr=log,
            env=env,
        )
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "port").exists():
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield f"http://127.0.0.1:{(tmp_path / 'port').read_text()}"
    finally:
        process.kill()
        process.wait()


def test_versions_and_recalls_beside_the_real_mistralrs(tmp_path: Path, url: str) -> None:
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
            folder = tiny_lora(
                tmp_path / f"lora-{seed}", hidden=64, seed=seed, alpha=400, targets=("q_proj", "o_proj")
            )
            return push(registry, open_dir(folder), TONE).version

        first, second = publish(1), publish(2)
        state_file = StateFile(tmp_path / "state.json")
        worker_registry = server.registry(server.token("gpu-1", "worker", ("acme",)))
        engine = ENGINES["mistralrs"](
            EngineClient(url), OperatorCommands(tmp_path / "adapters"), state_file.state.names
        )
        deps = ReconcilerDeps(
            registry=worker_registry,
            engine=engine,
            cache=Cache(tmp_path / "cache", retry=NO_WAIT),
            state_file=state_file,
            probe=lambda: probe_engine(url),
            inspect=lambda found: inspect_engine(worker_registry, found, None, "org/tiny"),
            log=print,
        )
        reconciler = Reconciler(
            deps, FollowSettings(name="gpu-1", engine="mistralrs", watch=("acme/*@prod",))
        )
        plain = odds(url, "default")
        assert engine.send_test_request(PROD).status == 404

        registry.aliases.move(TONE, "prod", first.digest, None)
        settle(reconciler)
        assert {one.digest for one in engine.list_adapters()} == {first.digest}
        once = odds(url, PROD)
        assert once != plain

        registry.aliases.move(TONE, "prod", second.digest, 1)
        settle(reconciler)
        assert {one.digest for one in engine.list_adapters() if one.name == PROD} == {second.digest}
        assert odds(url, PROD) not in (plain, once)
        assert odds(url, "default") == plain

        ref = Ref.of_revision(TONE, second.digest)
        change_state(registry, ref, StateChange(state="revoked", reason="for a test"))
        settle(reconciler)
        assert not any(one.digest == second.digest for one in engine.list_adapters())
        assert engine.send_test_request(PROD).status == 404
        (resident,) = registry.workers.residents(ref)
        assert resident.dropped_at is not None


def test_a_name_that_another_client_moved_is_not_replaced(tmp_path: Path, url: str) -> None:
    mine, theirs, next_one = (
        tiny_lora(tmp_path / str(seed), hidden=64, seed=seed, targets=("o_proj",)) for seed in (1, 2, 3)
    )
    engine = ENGINES["mistralrs"](EngineClient(url), OperatorCommands(tmp_path / "adapters"), {})
    engine.load("it", mine)
    seen = EngineClient(url).get("/v1/lora_adapters").json_list("data")[0]["generation"]
    engine.load("it", theirs)
    stale = {"lora_name": "it", "lora_path": str(next_one), "load_inplace": True, "expected_generation": seen}
    assert EngineClient(url).post("/v1/load_lora_adapter", stale).status == 409
    assert [one.path for one in engine.list_adapters()] == [str(theirs)]
    with pytest.raises(CheckFailed, match="it"):
        engine.load(
            "other", tiny_lora(tmp_path / "dora", hidden=64, targets=("o_proj",), config={"use_dora": True})
        )
    engine.unload("it")
    engine.unload("it")
    assert engine.list_adapters() == ()


def odds(url: str, model: str) -> object:
    asked = {"model": model, "prompt": "w5 w9 w11", "max_tokens": 1}
    return EngineClient(url).post("/v1/completions", asked).json["top"]
