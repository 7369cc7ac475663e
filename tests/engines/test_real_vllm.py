"""A worker with a real vLLM: its output equals PEFT's for the version that the alias refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_probe import probe_engine as found_at
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
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

from ..formats.other_environment import OtherEnvironment
from ..vllm import models, vllm_server
from .conftest import settle

PYTHON = OtherEnvironment("vllm", "vllm_library.py")
pytestmark = PYTHON.marks

TONE = AdapterName.parse("acme/tone")
PROD = "acme/tone@prod"


class Place:
    """A registry, a base of which vLLM serves a copy, and the folders of the versions by digest."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.registry = folder, server.registry()
        self.base = models.model(folder / "base")
        base_registry.register_base(
            self.registry,
            open_checkpoint(self.base),
            ("org/tiny",),
            visibility="internal",
            cache=folder / "bases",
        )
        self._server = server

    def publish(self, seed: int, name: AdapterName = TONE, **options: object) -> VersionInfo:
        folder = models.adapter(self.folder / f"lora-{seed}", seed=seed, **options)
        return push(self.registry, open_dir(folder), name).version

    def alias(self, version: VersionInfo) -> None:
        held = {one.alias: one.generation for one in self.registry.aliases.list(version.name)}
        self.registry.aliases.move(version.name, "prod", version.digest, held.get("prod"))

    def is_said_by(self, vllm: vllm_server.Vllm, seed: int) -> bool:
        """Whether the response for the alias equals PEFT's for that version: the logprobs of the chosen
        tokens.
        """
        answer = vllm.complete(PROD, models.PROMPT)
        assert answer.status == 200, answer.body
        said = answer.body["choices"][0]["logprobs"]["token_logprobs"]
        assert len(said) > 2
        trained = models.said(self.base, self.folder / f"lora-{seed}")[
            : len(said)
        ]  # vLLM stops at an end-of-text token
        return max(abs(one - other) for one, other in zip(said, trained, strict=True)) < 1e-3

    def follow(self, url: str, name: str = "gpu-1") -> Reconciler:
        registry = self._server.registry(self._server.token(name, "worker", ("acme",)))
        deps = ReconcilerDeps(
            registry=registry,
            engine=ENGINES["vllm"](EngineClient(url), OperatorCommands(Path()), {}),
            cache=Cache(self.folder / f"cache-{name}", retry=NO_WAIT),
            state_file=StateFile(self.folder / f"{name}.json"),
            probe=lambda: found_at(url),
            inspect=lambda found: inspect_engine(registry, found),
            log=print,
        )
        self.cache = deps.cache
        return Reconciler(deps, FollowSettings(name=name, engine="vllm", watch=("acme/*@prod",)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running_server(ServerSettings(data=tmp_path / "data")) as server:
        yield Place(tmp_path, server)


def test_aliases_recalls_limits_and_restarts_beside_a_real_vllm(place: Place) -> None:
    """These are tested one after another, since a server takes half a minute to start."""
    env = vllm_server.environment(Path(), place.folder / "home", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True")
    first, second = place.publish(1), place.publish(2)
    place.alias(first)
    with vllm_server.serving(PYTHON.python, place.base, env, place.folder / "one.log") as vllm:
        worker = place.follow(vllm.url)
        settle(worker)
        assert place.is_said_by(vllm, 1)

        place.alias(second)
        settle(worker)
        assert place.is_said_by(vllm, 2)
        assert not place.is_said_by(vllm, 1)
        assert list(vllm.names()) == [PROD]
        found = place.registry.workers.get("gpu-1")
        assert (found.base, found.base_name) == ("tiny", "org/tiny")

        wide = place.publish(3, rank=32)
        place.alias(wide)
        worker.reconcile(0.0)
        assert place.is_said_by(vllm, 2)
        (problem,) = place.registry.workers.get("gpu-1").problems
        assert "greater than max_lora_rank 16" in problem.reason

        place.alias(second)
        settle(worker)
        folder = Path(vllm.names()[PROD])
        revoke(place, second)
        settle(worker)
        assert vllm.complete(PROD, models.PROMPT).status == 404
        assert not folder.exists()
        assert (
            vllm.ask("POST", "/v1/load_lora_adapter", {"lora_name": PROD, "lora_path": str(folder)}).status
            >= 400
        )
        (resident,) = place.registry.workers.residents(Ref.of_revision(TONE, second.digest))
        assert resident.dropped_at is not None
        place.alias(first)
        settle(worker)
    assert not worker.reconcile(0.0)
    with vllm_server.serving(PYTHON.python, place.base, env, place.folder / "two.log") as vllm:
        settle(place.follow(vllm.url))
        assert place.is_said_by(vllm, 1)


def test_a_vllm_that_came_back_with_another_base_and_the_same_adapter_does_not_serve_it(place: Place) -> None:
    """It restarts between two passes, at the same address and with the same path, and loads the adapter at
    its start.
    """
    env = vllm_server.environment(Path(), place.folder / "home", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True")
    place.alias(place.publish(1))
    with vllm_server.held_port() as port:
        with vllm_server.served_at(
            PYTHON.python, place.base, env, place.folder / "one.log", (), port
        ) as vllm:
            worker = place.follow(vllm.url)
            settle(worker)
            assert place.is_said_by(vllm, 1)
            folder = vllm.names()[PROD]
        shutil.rmtree(place.base)
        models.model(place.base, seed=1)
        options = ("--lora-modules", f"{PROD}={folder}")
        with vllm_server.served_at(
            PYTHON.python, place.base, env, place.folder / "two.log", options, port
        ) as vllm:
            assert vllm.complete(PROD, models.PROMPT).status == 200
            worker.reconcile(0.0)
            assert vllm.names() == {}
            assert vllm.complete(PROD, models.PROMPT).status == 404
            (problem,) = place.registry.workers.get("gpu-1").problems
            assert "this engine serves another model" in problem.reason


def revoke(place: Place, version: VersionInfo) -> None:
    ref = Ref.of_revision(TONE, version.digest)
    change_state(place.registry, ref, StateChange(state="revoked", reason="for a test"))


def test_cleaning_the_cache_after_the_worker_stopped_leaves_what_vllm_reads_again(place: Place) -> None:
    """vLLM keeps two adapters in memory, and reads the third again from its folder; without that folder, it
    exits.
    """
    env = vllm_server.environment(Path(), place.folder / "home", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True")
    names = [AdapterName.parse(f"acme/kept-{seed}") for seed in (11, 12, 13)]
    versions = [place.publish(seed, name) for seed, name in zip((11, 12, 13), names, strict=True)]
    for version in versions:
        place.alias(version)
    with vllm_server.serving(PYTHON.python, place.base, env, place.folder / "three.log") as vllm:
        settle(place.follow(vllm.url, "gpu-2"))
        place.cache.close()
        cleaning = Cache(place.folder / "cache-gpu-2")
        kept = {version.digest for version in versions}
        assert kept.isdisjoint(entry.digest for entry in cleaning.shrink(0))
        for _ in range(2):
            for seed, name in zip((11, 12, 13), names, strict=True):
                answer = vllm.complete(f"{name}@prod", models.PROMPT)
                said = answer.body["choices"][0]["logprobs"]["token_logprobs"]
                trained = models.said(place.base, place.folder / f"lora-{seed}")[: len(said)]
                assert max(abs(one - other) for one, other in zip(said, trained, strict=True)) < 1e-3
        assert vllm.process.poll() is None

        assert vllm.ask("POST", "/v1/unload_lora_adapter", {"lora_name": f"{names[0]}@prod"}).status == 200
        worker = place.follow(vllm.url, "gpu-2")
        place.registry.aliases.remove(names[0], "prod", 1)
        settle(worker)
        place.cache.close()
        gone = {entry.digest for entry in cleaning.shrink(0)}
        assert gone & kept == {versions[0].digest}
        assert vllm.complete(f"{names[1]}@prod", models.PROMPT).status == 200
